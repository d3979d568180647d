"""The images that a recipe trains on: opened, read as squares, and divided into learned from and held out."""

import numpy as np

from gtool import console
from gtool.config.schema import Recipe
from gtool.data import pixel_cache
from gtool.data.dataset import ImageDataset, SceneDataset
from gtool.data.layout import count_of
from gtool.data.loader import Batches
from gtool.data.open import open_dataset
from gtool.data.pixel_cache import ImageArrays
from gtool.data.tables import COLUMN_NAMES
from gtool.errors import DataError
from gtool.runtime.device import Compute
from gtool.runtime.random import derive_seed, permutation

MIN_TO_DIVIDE = 16  # images; fewer are not divided


def open_images(recipe: Recipe) -> ImageDataset:
    """Find the images of a recipe, as `open_dataset` does, and raise where training would refuse them.

    Only as many images are decoded as it takes to find two that can be read.

    Raises:
        DataError: no such data, none that can be read, no labels or maps that the recipe asks for.
    """
    data = recipe.data
    dataset = open_dataset(
        data.dataset,
        split=data.split,
        columns={role: getattr(data, f"{role}_column") for role in COLUMN_NAMES},
        layout={"folders": data.folders, "segmentation_folder": data.segmentation_folder},
        num_images=data.num_images,
        resolution=data.resolution,
    )
    dataset.require(data.condition)
    if data.condition == "class":
        dataset.require_class_of_each()
    dataset.require_readable()
    return dataset


def load_images(
    dataset: ImageDataset, recipe: Recipe, resolution: int, compute: Compute, *, is_training: bool = True
) -> ImageArrays:
    """Read images, and the labels or maps that the recipe asks for, as squares of so many pixels a side.

    Those that cannot be read are named. Where it is for training, or not what was asked for, it is said what the data
    set is taken for.

    Raises:
        DataError: fewer than two can be read, there are no labels or maps, or the cache cannot be written.
    """
    data = recipe.data
    if is_training or dataset.notes:
        console.notice(f"data: {dataset.describe()}")
    with console.progress(f"reading {dataset.name}") as update:
        images = pixel_cache.load_images(
            dataset,
            resolution,
            crop=data.crop,
            budget_gb=data.cache_gb,
            condition=data.condition,
            num_labels=data.num_labels,
            progress=update,
        )
    if images.skipped and compute.is_main:
        count, what = len(images.skipped), dataset.unit
        console.warning(
            f"{count_of(count, what)} cannot be read and {'is' if count == 1 else 'are'} left out:"
        )
        for name, reason in images.skipped[:10]:
            console.warning(f"  {name}: {reason}")
        if len(images.skipped) > 10:
            console.warning(f"  and {len(images.skipped) - 10} more")
    if data.condition == "segmentation" and dataset.has_colour_maps():
        console.notice(f"{dataset.name}: its label maps are in colour, and their grey values are the labels")
    if images.is_binary:
        console.notice(f"{dataset.name}: its label maps hold 0 and 255 alone, taken as two labels, 0 and 1")
    return images


def hold_out(
    images: ImageArrays, recipe: Recipe, compute: Compute, *, flip: bool
) -> tuple[Batches, np.ndarray]:
    """Return batches of most images, and the places of those that are kept aside, int64 (n,).

    A seeded choice of 512 is kept, or one image in twenty where that is less, but at least one. Fewer than sixteen
    images are too few to be divided: all of them are learned from and measured on.
    """
    kept, shown = _divide(len(images), recipe)
    batches = Batches(
        images,
        seed=recipe.train.seed,
        flip=flip,
        rank=compute.rank,
        world_size=compute.world_size,
        shown=shown,
    )
    return batches, kept


def _divide(count: int, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Return the places, in order, of images that are kept aside, int64 (n,), and of those that are learned from."""
    order = permutation(count, derive_seed("held-out", recipe.train.seed))
    number = min(512, max(1, count // 20)) if count >= MIN_TO_DIVIDE else 0
    return np.sort(order[:number] if number else order), np.sort(order[number:])


def held_out_of(recipe: Recipe, compute: Compute, instead: str) -> tuple[ImageArrays, np.ndarray]:
    """Return the data set of a training with its conditions, and the places of what it has kept aside.

    instead: what the user can type where the data set is not here, for the DataError that says so.
    """
    return _kept_of(_trained_on(recipe, instead), recipe, compute)


def held_out_alone(
    recipe: Recipe, compute: Compute, instead: str
) -> tuple[ImageArrays, np.ndarray, np.ndarray]:
    """As `held_out_of`, with the numbers that the kept images have in their data set, int64 (n,).

    Of a set that is drawn no others are: twenty thousand scenes take long.
    """
    source = _trained_on(recipe, instead)
    if isinstance(source, SceneDataset):
        numbers = _divide(len(source), recipe)[0]
        images = load_images(source.take(numbers), recipe, recipe.data.resolution, compute, is_training=False)
        return images, np.arange(len(numbers)), numbers
    images, kept = _kept_of(source, recipe, compute)
    return images, kept, kept


def _kept_of(source: ImageDataset, recipe: Recipe, compute: Compute) -> tuple[ImageArrays, np.ndarray]:
    images = load_images(source, recipe, recipe.data.resolution, compute, is_training=False)
    return images, _divide(len(images), recipe)[0]


def _trained_on(recipe: Recipe, instead: str) -> ImageDataset:
    try:
        return open_images(recipe)
    except DataError as bad:
        raise DataError(f"{bad}; it is what the weights were trained on: or add {instead}") from None
