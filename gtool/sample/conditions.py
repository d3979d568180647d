"""What images of a prior are conditioned on: a class or a map that the user names, or those of the prior's data set.

Reading comes before the networks are loaded, so that a wrong map is refused at once; `of` encodes the conditions of
some images with the loaded networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gtool.config.recipe import Recipe, recipe_of_weights
from gtool.data.conditions import ids_of_depth, ids_of_maps
from gtool.data.held_out import held_out_of, open_images
from gtool.data.label_colours import colour_maps, colours_of
from gtool.data.label_maps import read_depth_file, read_label_map_file
from gtool.data.loader import read_conditions, read_images
from gtool.data.pixel_cache import ImageSet
from gtool.errors import GToolError, RecipeError, did_you_mean
from gtool.io.pictures import Pixels
from gtool.models.generate import TrainedModel
from gtool.models.prior.config import PriorPipelineConfig
from gtool.models.prior.pipeline import encode_condition
from gtool.runtime.device import Compute
from gtool.runtime.random import derive_seed, permutation
from gtool.sample.options import CONDITIONS, SampleOptions, Size, check_size


@dataclass(frozen=True)
class ConditionBatch:
    """The conditions of some images.

    ids: int64 (n, 1), or (n, h, w) where each code has one.
    maps: uint8 (n, 3, H, W), each image's own map as a picture, where they differ.
    photos: uint8 (n, 3, H, W), each image's original, where there are any.
    labels: (n, H, W) of the maps, for their legend.
    classes: names of the images' classes, where there are classes.
    texts: what each condition is, for people.
    """

    ids: Tensor
    texts: Sequence[str]
    maps: Pixels | None = None
    photos: Pixels | None = None
    labels: np.ndarray | None = None
    classes: Sequence[str] | None = None


@dataclass(frozen=True)
class OneCondition:
    """The same condition for all images.

    size: height and width of the images.
    text: what it is, for people.
    value: a class, labels (H, W), depth (H, W) from 0 to 1, or None for no condition.
    picture: uint8 (3, H, W) of a map.
    """

    size: Size
    text: str
    value: int | np.ndarray | None = None
    picture: Pixels | None = None
    is_depth: bool = False

    @property
    def labels(self) -> np.ndarray | None:
        """The labels (H, W) of a label map, for its legend."""
        return self.value if isinstance(self.value, np.ndarray) and not self.is_depth else None

    def of(self, numbers: Sequence[int], model: TrainedModel) -> ConditionBatch:
        """Return the condition of images by their numbers."""
        count = len(numbers)
        if self.value is None:
            down = model.network.tokenizer.down
            ids = model.no_condition(torch.tensor([0]), (self.size[0] // down, self.size[1] // down))
        elif isinstance(self.value, int):
            ids = torch.tensor([[self.value]])
        elif self.is_depth:
            depth = torch.from_numpy(self.value * 2 - 1)[None, None]
            ids = encode_condition(model.network, depth, model.compute, ids_of_depth)
        else:
            labels = torch.from_numpy(self.value.astype(np.int64))[None]
            ids = encode_condition(model.network, labels, model.compute, ids_of_maps)
        classes = (self.text,) * count if isinstance(self.value, int) else None
        return ConditionBatch(ids.expand(count, *ids.shape[1:]), (self.text,) * count, classes=classes)


@dataclass(frozen=True)
class DataSetConditions:
    """Conditions of images that the training has held out.

    size: height and width of the images.
    text: what they are, for people.
    images, places: the data set, and where the conditions of image 0, 1 and so on are in it.
    """

    size: Size
    text: str
    images: ImageSet
    places: np.ndarray
    dataset: str
    num_labels: int
    picture: Pixels | None = None
    labels: np.ndarray | None = None

    def of(self, numbers: Sequence[int], model: TrainedModel) -> ConditionBatch:
        """Return the condition of each image of these numbers."""
        kind = self.images.condition
        places = self.places[np.asarray(numbers, np.int64) % len(self.places)]
        found = read_conditions(self.images, places)
        photos = read_images(self.images, places).numpy()
        texts = [f"{kind} of image {place} of {self.dataset}" for place in places]
        if kind == "class":
            names = [self._class_name(number) for number in found.tolist()]
            return ConditionBatch(found[:, None], names, photos=photos, classes=names)
        if kind == "depth":
            ids = encode_condition(model.network, found, model.compute, ids_of_depth)
            return ConditionBatch(ids, texts, as_grey((found[:, 0].numpy() + 1) / 2), photos)
        ids = encode_condition(model.network, found, model.compute, ids_of_maps)
        maps = colour_maps(found.numpy(), colours_of(self.dataset, self.num_labels))
        return ConditionBatch(ids, texts, maps, photos, found.numpy())

    def _class_name(self, number: int) -> str:
        if number >= self.num_labels:
            return "no class"
        return _name_of_class(number, self.images.label_names)


Conditions = OneCondition | DataSetConditions


def open_conditions(options: SampleOptions, compute: Compute) -> Conditions:
    """Return what the images that are asked for are conditioned on; bad maps are refused here.

    Raises:
        RecipeError: a class that does not exist, a size that is too small, no data set to take conditions from.
        DataError: a map that cannot be used.
    """
    config, kind, given = options.config, options.condition, options.given_condition
    size = options.image_size or (config.resolution, config.resolution)
    recipe = recipe_of_weights(options.meta, options.weights)
    if kind == "none":
        return OneCondition(size, "no condition")
    if options.without_condition:
        return OneCondition(size, "nothing said")
    if given is None:
        if recipe is None:
            raise RecipeError(
                f"{options.weights}: does not say what it was trained on; add {CONDITIONS[kind][1]}"
            )
        return of_data_set(recipe, num_labels(config), options.seed, compute)
    if isinstance(given, str):
        number, name = class_of(given, num_labels(config), recipe)
        return OneCondition(size, name, number)
    return of_map(given.expanduser(), config, options.image_size, recipe.data.dataset if recipe else "")


def of_data_set(recipe: Recipe, labels: int, seed: int, compute: Compute) -> DataSetConditions:
    """Return the conditions of the images that a training has held out, in an order of the seed."""
    data = recipe.data
    images, held_out = held_out_of(recipe, compute, CONDITIONS[data.condition][1])
    places = held_out[permutation(len(held_out), derive_seed("conditions", seed))]
    text = f"{data.condition} of held-out images of {data.dataset}"
    return DataSetConditions((data.resolution, data.resolution), text, images, places, data.dataset, labels)


def num_labels(config: PriorPipelineConfig) -> int:
    """Return how many classes or labels there are, without that for none."""
    own, prior = config.condition_tokenizer, config.prior
    if own is not None and prior.condition == "segmentation":
        return own.image_channels
    return prior.condition_size - (0 if prior.shared_embedding else 1)


def class_of(text: str, count: int, recipe: Recipe | None) -> tuple[int, str]:
    """Return the number and the name of a class that is written as a number or by its name.

    recipe: of the training, whose data set knows the names where it is here.
    """
    try:
        names = open_images(recipe).class_names if recipe else None
    except GToolError:  # not here
        names = None
    if text.strip().isdecimal():  # not ², which is a digit and no number
        number = int(text)
    elif names is None:
        raise RecipeError(f"--class {text}: this set names no classes; give a number from 0 to {count - 1}")
    elif text not in names:
        raise RecipeError(f"--class {text}: no such class{did_you_mean(text, names)}")
    else:
        number = names.index(text)
    if number >= count:
        raise RecipeError(f"--class {text}: no such class; there are 0 to {count - 1}")
    return number, _name_of_class(number, names)


def of_map(path: Path, config: PriorPipelineConfig, size: Size | None, dataset: str) -> OneCondition:
    """Read a label map or a depth map; `size` None keeps its own."""
    cell, labels = config.tokenizer.down, num_labels(config)
    is_depth = config.prior.condition == "depth"
    if is_depth:
        value = read_depth_file(path, size, cell=cell)
        picture = as_grey(value)
    else:
        colours = colours_of(dataset, labels)
        value = read_label_map_file(path, labels, size, cell=cell, colours=colours)
        picture = colour_maps(value, colours)
    height, width = value.shape
    check_size((height, width), config, f"{path}: {width}x{height} pixels")
    return OneCondition((height, width), path.name, value, picture, is_depth)


def as_grey(depth: np.ndarray) -> Pixels:
    """Return depth (..., H, W) from 0 to 1 as pictures, uint8 (..., 3, H, W)."""
    grey = np.rint(255 * depth).astype(np.uint8)
    return np.ascontiguousarray(np.stack([grey] * 3, axis=-3))


def _name_of_class(number: int, names: Sequence[str] | None) -> str:
    return names[number] if names and number < len(names) else f"class {number}"
