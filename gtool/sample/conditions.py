"""What images of a prior are conditioned on: a class or a map that the user names, or those of the prior's data set.

Files are read before the networks are loaded, so that a wrong map is refused at once; `of` encodes the conditions of
some images with the loaded networks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gtool.config.schema import Recipe
from gtool.data.held_out import held_out_alone, open_images
from gtool.data.label_colours import colour_maps, colours_of
from gtool.data.label_maps import read_depth_file, read_label_map_file
from gtool.data.loader import ids_of_depth, ids_of_maps, read_conditions, read_images
from gtool.errors import GToolError, RecipeError
from gtool.io.pictures import Pixels
from gtool.models.generate import TrainedModel
from gtool.models.prior.config import PriorPipelineConfig
from gtool.models.prior.pipeline import encode_condition
from gtool.runtime.device import Compute
from gtool.runtime.random import derive_seed, permutation
from gtool.sample.checks import CONDITIONS, Sampling
from gtool.sample.classes import find_class
from gtool.sample.parse import Size, check_size


@dataclass(frozen=True)
class ConditionBatch:
    """The conditions of some images.

    ids: int64 (n, 1), or (n, h, w) where each code has one.
    texts: what each condition is, for people.
    maps: uint8 (n, 3, H, W), each image's own map as a picture, where they differ.
    photos: uint8 (n, 3, H, W), each image's original, where there are any.
    labels: (n, H, W) of the maps, for their legend.
    classes: names of the images' classes, where there are classes.
    """

    ids: Tensor
    texts: Sequence[str]
    maps: Pixels | None = None
    photos: Pixels | None = None
    labels: np.ndarray | None = None
    classes: Sequence[str] | None = None


@dataclass(frozen=True)
class Conditions:
    """Where the conditions of images come from.

    size: height and width of the images.
    text: what they are, for people.
    of: from image numbers and the loaded model to the conditions of these images.
    picture, labels: uint8 (3, H, W) and (H, W) of a map that all images have in common.
    """

    size: Size
    text: str
    of: Callable[[Sequence[int], TrainedModel], ConditionBatch]
    picture: Pixels | None = None
    labels: np.ndarray | None = None


def open_conditions(options: Sampling, compute: Compute) -> Conditions:
    """Return what the images that are asked for are conditioned on.

    Raises:
        RecipeError: a class that does not exist, a size that is too small, no data set to take conditions from.
        DataError: a map that cannot be used.
    """
    config, kind, given = options.config, options.condition, options.given_condition
    size = options.image_size or (config.resolution, config.resolution)
    recipe = options.recipe
    if kind == "none" or options.without_condition:
        grid = (size[0] // config.tokenizer.down, size[1] // config.tokenizer.down)
        text = "no condition" if kind == "none" else "nothing said"
        return for_all(size, text, lambda model: model.no_condition(torch.tensor([0]), grid))
    if given is None:
        if recipe is None:
            flag = CONDITIONS[kind][1]
            raise RecipeError(f"{options.weights}: does not say what it was trained on; add {flag}")
        return of_data_set(recipe, num_labels(config), options.seed, compute)
    if isinstance(given, str):
        number, name = class_of(given, num_labels(config), recipe)
        return for_all(size, name, lambda model: torch.tensor([[number]]), is_class=True)
    return of_map(given, config, options.image_size, recipe.data.dataset if recipe else "")


def for_all(
    size: Size,
    text: str,
    encode: Callable[[TrainedModel], Tensor],
    *,
    is_class: bool = False,
    picture: Pixels | None = None,
    labels: np.ndarray | None = None,
) -> Conditions:
    """Return one condition for all images; `encode` makes its ids (1, ...)."""

    def of(numbers: Sequence[int], model: TrainedModel) -> ConditionBatch:
        texts, ids = [text] * len(numbers), encode(model)
        ids = ids.expand(len(numbers), *ids.shape[1:])
        return ConditionBatch(ids, texts, classes=texts if is_class else None)

    return Conditions(size, text, of, picture, labels)


def of_data_set(recipe: Recipe, labels: int, seed: int, compute: Compute) -> Conditions:
    """Return the conditions of the images that a training has held out, in an order of the seed."""
    data, kind = recipe.data, recipe.data.condition
    images, held_out, own_numbers = held_out_alone(recipe, compute, CONDITIONS[kind][1])
    order = permutation(len(held_out), derive_seed("conditions", seed))

    def of(numbers: Sequence[int], model: TrainedModel) -> ConditionBatch:
        chosen = order[np.asarray(numbers, np.int64) % len(order)]
        places = held_out[chosen]
        found = read_conditions(images, places)
        photos = read_images(images, places).numpy()
        texts = [f"{kind} of image {number} of {data.dataset}" for number in own_numbers[chosen]]
        if kind == "class":
            names = [
                "no class" if number >= labels else _class_name(number, images.label_names)
                for number in found.tolist()
            ]
            return ConditionBatch(found[:, None], names, photos=photos, classes=names)
        if kind == "depth":
            ids = encode_condition(model.network, found, model.compute, ids_of_depth)
            return ConditionBatch(ids, texts, as_grey((found[:, 0].numpy() + 1) / 2), photos)
        ids = encode_condition(model.network, found, model.compute, ids_of_maps)
        maps = colour_maps(found.numpy(), colours_of(data.dataset, labels))
        return ConditionBatch(ids, texts, maps, photos, found.numpy())

    return Conditions((data.resolution, data.resolution), f"{kind} of held-out images of {data.dataset}", of)


def of_map(path: Path, config: PriorPipelineConfig, size: Size | None, dataset: str) -> Conditions:
    """Read a label map or a depth map that all images follow; `size` None keeps its own."""
    cell, count = config.tokenizer.down, num_labels(config)
    labels: np.ndarray | None = None
    cell_ids: Callable[[Tensor, tuple[int, int]], Tensor] = ids_of_depth
    if config.prior.condition == "depth":
        depth = read_depth_file(path, size, cell=cell)
        given, picture = torch.from_numpy(depth * 2 - 1)[None, None], as_grey(depth)
    else:
        cell_ids, colours = ids_of_maps, colours_of(dataset, count)
        labels = read_label_map_file(path, count, size, cell=cell, colours=colours)
        given, picture = torch.from_numpy(labels.astype(np.int64))[None], colour_maps(labels, colours)
    height, width = given.shape[-2:]
    check_size((height, width), config, f"{path}: {width}x{height} pixels")
    return for_all(
        (height, width),
        path.name,
        lambda model: encode_condition(model.network, given, model.compute, cell_ids),
        picture=picture,
        labels=labels,
    )


def num_labels(config: PriorPipelineConfig) -> int:
    """Return how many classes or labels there are, without that for none."""
    own, prior = config.condition_tokenizer, config.prior
    if own is not None and prior.condition == "segmentation":
        return own.image_channels
    return prior.condition_size - (0 if prior.shared_embedding else 1)


def class_of(text: str, count: int, recipe: Recipe | None) -> tuple[int, str]:
    """Return the number and the name of a class that is written by its name or as a number; names go first.

    recipe: of the training, whose data set knows the names where it is here.
    """
    names = class_names(recipe)
    number = find_class(text, names, count)
    return number, _class_name(number, names)


def class_names(recipe: Recipe | None) -> Sequence[str] | None:
    """Return the names of classes where the data set is here and has any."""
    try:
        return open_images(recipe).class_names if recipe else None
    except GToolError:
        return None


def label_names(recipe: Recipe | None) -> Sequence[str] | None:
    """Return the names of labels of maps where the data set is here and has any."""
    try:
        return open_images(recipe).maps_of("segmentation").label_names if recipe else None
    except GToolError:
        return None


def as_grey(depth: np.ndarray) -> Pixels:
    """Return depth (..., H, W) from 0 to 1 as pictures, uint8 (..., 3, H, W)."""
    grey = np.rint(255 * depth).astype(np.uint8)
    return np.ascontiguousarray(np.stack([grey] * 3, axis=-3))


def _class_name(number: int, names: Sequence[str] | None) -> str:
    return names[number] if names and number < len(names) else f"class {number}"
