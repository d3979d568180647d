"""Images to learn from, for the families that look at some: found without torch, then read as squares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from gtool.config.schema import Recipe
    from gtool.data.loader import Batches
    from gtool.data.pixel_cache import ImageSet
    from gtool.runtime.device import Compute

FEW = 16  # images that are not divided any more


def open_images(recipe: Recipe) -> Any:
    """Find the images of a recipe, without torch.

    Raises:
        DataError: no such data, or none that can be used.
    """
    from gtool.data.open import open_dataset

    data = recipe.data
    return open_dataset(
        data.dataset,
        split=data.split,
        image_column=data.image_column,
        label_column=data.label_column,
        segmentation_column=data.segmentation_column,
        depth_column=data.depth_column,
        num_images=data.num_images,
        resolution=data.resolution,
    )


def load_images(source: Any, recipe: Recipe, resolution: int, compute: Compute) -> ImageSet:
    """Read images, and the labels or maps that the recipe wants, as squares of so many pixels a side.

    Those that cannot be read are named.

    Raises:
        DataError: fewer than two can be read, there are no labels or maps, or the cache cannot be written.
    """
    from gtool.data import pixel_cache as cache

    data = recipe.data
    if source.note:
        console.notice(source.note)
    with console.progress(f"reading {source.name}") as update:
        images = cache.load_images(
            source,
            resolution,
            crop=data.crop,
            budget_gb=data.cache_gb,
            condition=data.condition,
            num_labels=data.num_labels,
            progress=lambda done, total: update(done, total, f"{done:,} of {total:,} images"),
        )
    if compute.is_main:
        _name_skipped(images.skipped)
    return images


def _name_skipped(skipped: list[tuple[str, str]]) -> None:
    if not skipped:
        return
    console.warning(f"{len(skipped)} of the files cannot be read and are left out:")
    for name, reason in skipped[:10]:
        console.warning(f"  {name}: {reason}")
    if len(skipped) > 10:
        console.warning(f"  and {len(skipped) - 10} more")


def hold_out(images: ImageSet, recipe: Recipe, compute: Compute, *, flip: bool) -> tuple[Batches, np.ndarray]:
    """Return batches of most images, and the places of those that are kept aside, int64 (n,).

    A seeded choice of 512 is kept, or one image in twenty where that is less, but at least one. Fewer than sixteen
    images are too few to be divided: all of them are learned from and measured on.
    """
    import numpy as np

    from gtool.data.loader import Batches
    from gtool.runtime.random import derive_seed, permutation

    count = len(images)
    order = permutation(count, derive_seed("held-out", recipe.train.seed))
    number = min(512, max(1, count // 20)) if count >= FEW else 0
    batches = Batches(
        images,
        seed=recipe.train.seed,
        flip=flip,
        rank=compute.rank,
        world_size=compute.world_size,
        shown=np.sort(order[number:]),
    )
    return batches, np.sort(order[:number] if number else order)


def held_out_of(recipe: Recipe, compute: Compute, instead: str) -> tuple[ImageSet, np.ndarray]:
    """Return the data set of a training with its conditions, and the places of what it has kept aside.

    instead: what the user can type where the data set is not here.

    Raises:
        DataError: the data set is not here, or cannot be used.
    """
    try:
        source = open_images(recipe)
    except DataError as bad:
        raise DataError(f"{bad}; it is what the weights were trained on: or add {instead}") from None
    images = load_images(source, recipe, recipe.data.resolution, compute)
    return images, hold_out(images, recipe, compute, flip=False)[1]
