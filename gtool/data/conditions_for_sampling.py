"""What pictures of a prior are composed from: what the user names, or conditions of the prior's own data set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from gtool.errors import DataError, GToolError, RecipeError, did_you_mean
from gtool.sample.prior_options import FLAG_OF, Plan, Size, refuse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from gtool.data.pixel_cache import ImageSet
    from gtool.io.picture import Pixels
    from gtool.runtime.device import Compute


@dataclass(frozen=True)
class Given:
    """The conditions of some images.

    ids: int64 (n, 1), or (n, h, w) where each code has one.
    maps: uint8 (n, 3, H, W), each image's own map as a picture, where they differ.
    photos: uint8 (n, 3, H, W), each image's original, where there are any.
    labels: (n, H, W) of the maps, for their legend.
    names: of the images' classes, where there are classes.
    origins: where each condition is from, where they differ.
    """

    ids: Tensor
    maps: Pixels | None = None
    photos: Pixels | None = None
    labels: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    origins: tuple[str, ...] | None = None


class Conditions(Protocol):
    """Where conditions come from.

    size: height and width of the pictures.
    text: what they are, for people.
    shown: uint8 (3, H, W), what all images have in common, as a picture.
    labels: (H, W) of it, for a legend.
    """

    size: Size
    text: str
    shown: Pixels | None
    labels: np.ndarray | None

    def of(self, numbers: Sequence[int], composer: Any, compute: Compute) -> Given:
        """Return the conditions of images by their numbers."""
        ...


def conditions_of(plan: Plan, compute: Compute) -> Conditions:
    """Return where the conditions of a job come from; bad maps are refused here.

    Raises:
        RecipeError: a class that does not exist, a size that is too small, no data set to take conditions from.
        DataError: a map that cannot be used.
    """
    if plan.condition == "none":
        return Common(plan, plan.size or plan.trained_size, "no condition")
    if plan.is_untold:
        return Common(plan, plan.size or plan.trained_size, "nothing said", untold=True)
    if plan.given is None:
        return OwnData(plan, compute)
    if plan.condition == "class":
        return _of_class(plan)
    if plan.condition == "depth":
        return _of_depth_map(plan)
    return _of_label_map(plan)


@dataclass
class Common:
    """One condition for all images."""

    plan: Plan
    size: Size
    text: str
    shown: Pixels | None = None
    labels: np.ndarray | None = None
    depth: np.ndarray | None = None  # (H, W) from 0 to 1
    number: int = 0  # of the class
    name: str | None = None
    untold: bool = False

    def of(self, numbers: Sequence[int], composer: Any, compute: Compute) -> Given:
        """Return the same condition for each."""
        import torch

        from gtool.models.prior.conditional_generator import codes_of_depth, codes_of_labels

        count = len(numbers)
        if self.untold:
            prior = self.plan.config.prior
            grid = [side // self.plan.down for side in self.size] if prior.condition_length > 1 else [1]
            ids = torch.full((1, *grid), prior.condition_size - 1)
        elif self.labels is not None:
            ids = codes_of_labels(composer, self.labels[None], compute)
        elif self.depth is not None:
            ids = codes_of_depth(composer, torch.from_numpy(self.depth * 2 - 1)[None, None], compute)
        else:
            ids = torch.full((1, 1), self.number)
        names = None if self.name is None else (self.name,) * count
        return Given(ids.expand(count, *ids.shape[1:]), names=names)


def _of_class(plan: Plan) -> Common:
    text = str(plan.given)
    names = _class_names(plan)
    if text.strip().isdecimal():  # not ², which is a digit and no number
        number = int(text)
    elif names is None:
        raise RecipeError(
            f"--class {text}: this set names no classes; give a number from 0 to {plan.num_labels - 1}"
        )
    elif text not in names:
        raise RecipeError(f"--class {text}: no such class{did_you_mean(text, names)}")
    else:
        number = names.index(text)
    if number >= plan.num_labels:
        raise RecipeError(f"--class {text}: no such class; there are 0 to {plan.num_labels - 1}")
    name = names[number] if names and number < len(names) else f"class {number}"
    return Common(plan, plan.size or plan.trained_size, name, number=number, name=name)


def _class_names(plan: Plan) -> tuple[str, ...] | None:
    """Return the names of classes where the data set is there and has any."""
    from gtool.data.held_out import open_images

    try:
        found = open_images(plan.recipe).class_names if plan.recipe else None
    except GToolError:
        return None
    return None if found is None else tuple(found)


def _of_label_map(plan: Plan) -> Common:
    from gtool.data.label_colours import colour_maps, colours_of
    from gtool.data.label_maps import read_label_map_file

    path = plan.job.request.segmentation
    assert path is not None
    path = path.expanduser()
    colours = colours_of(_dataset(plan), plan.num_labels)
    labels = read_label_map_file(path, plan.num_labels, plan.size, cell=plan.down, colours=colours)
    refuse_size(plan, labels.shape, f"{path}: {labels.shape[1]}x{labels.shape[0]} pixels")
    return Common(plan, labels.shape, path.name, shown=colour_maps(labels, colours), labels=labels)


def _of_depth_map(plan: Plan) -> Common:
    from gtool.data.label_maps import read_depth_file

    path = plan.job.request.depth
    assert path is not None
    path = path.expanduser()
    depth = read_depth_file(path, plan.size, cell=plan.down)
    size: Size = (depth.shape[0], depth.shape[1])
    refuse_size(plan, size, f"{path}: {size[1]}x{size[0]} pixels")
    return Common(plan, size, path.name, shown=as_grey(depth), depth=depth)


def as_grey(depth: np.ndarray) -> Pixels:
    """Return depth (..., H, W) from 0 to 1 as pictures, uint8 (..., 3, H, W)."""
    import numpy as np

    grey = np.rint(255 * depth).astype(np.uint8)
    return np.ascontiguousarray(np.stack([grey] * 3, axis=-3))


def _dataset(plan: Plan) -> str:
    return plan.recipe.data.dataset if plan.recipe else ""


class OwnData:
    """Conditions of images that the training has kept aside; which, the seed and an image's number decide."""

    shown: Pixels | None = None
    labels: np.ndarray | None = None

    def __init__(self, plan: Plan, compute: Compute) -> None:
        self.plan, self.size = plan, plan.trained_size
        if plan.recipe is None:
            raise RecipeError(
                f"{plan.job.weights}: does not say what it was trained on; add {FLAG_OF[plan.condition]}"
            )
        self.images, self.kept = held_out_of(plan.recipe, compute, FLAG_OF[plan.condition])
        self.text = f"{plan.condition} of held-out images of {plan.recipe.data.dataset}"

    @cached_property
    def order(self) -> np.ndarray:
        """The places of the images that are kept aside, in an order of the seed."""
        from gtool.metrics.images import permutation
        from gtool.runtime.random import derive_seed

        chosen: np.ndarray = self.kept[
            permutation(len(self.kept), derive_seed("conditions", self.plan.job.request.seed))
        ]
        return chosen

    def of(self, numbers: Sequence[int], composer: Any, compute: Compute) -> Given:
        """Return the condition of each image of these numbers."""
        import numpy as np

        from gtool.data.label_colours import colour_maps, colours_of
        from gtool.data.loader import read_conditions, read_images
        from gtool.models.prior.conditional_generator import codes_of_depth, codes_of_labels

        places = self.order[np.asarray(numbers, np.int64) % len(self.order)]
        found = read_conditions(self.images, places)
        photos = read_images(self.images, places).numpy()
        origins = tuple(
            f"{self.plan.condition} of image {place} of {_dataset(self.plan)}" for place in places
        )
        if self.plan.condition == "class":
            names = tuple(map(self._class_name, found.tolist()))
            return Given(found[:, None], photos=photos, names=names)
        if self.plan.condition == "depth":
            maps = as_grey((found[:, 0].numpy() + 1) / 2)
            return Given(codes_of_depth(composer, found, compute), maps, photos, origins=origins)
        labels = found.numpy()
        maps = colour_maps(labels, colours_of(_dataset(self.plan), self.plan.num_labels))
        return Given(codes_of_labels(composer, labels, compute), maps, photos, labels, origins=origins)

    def _class_name(self, number: int) -> str:
        names = self.images.label_names
        if number >= self.plan.num_labels:
            return "no class"
        return names[number] if names and number < len(names) else f"class {number}"


def held_out_of(recipe: Any, compute: Compute, instead: str) -> tuple[ImageSet, np.ndarray]:
    """Return the data set of a training with its conditions, and the places of what it has kept aside.

    instead: what the user can type where the data set is not here.

    Raises:
        DataError: the data set is not here, or cannot be used.
    """
    from gtool.data.held_out import hold_out, load_images, open_images

    try:
        source = open_images(recipe)
    except DataError as bad:
        raise DataError(f"{bad}; it is what the weights were trained on: or add {instead}") from None
    images = load_images(source, recipe, recipe.data.resolution, compute)
    return images, hold_out(images, recipe, compute, flip=False)[1]
