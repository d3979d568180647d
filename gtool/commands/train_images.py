"""Images to learn from, for the families that look at some: found without torch, then read as squares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gtool import console

if TYPE_CHECKING:
    from gtool.data.cache import ImageSet
    from gtool.device import Compute
    from gtool.recipe import Recipe


def open_images(recipe: Recipe) -> Any:
    """Find the images of a recipe, without torch.

    Raises:
        DataError: no such data, or none that can be used.
    """
    from gtool.data.sources import open_source

    data = recipe.data
    return open_source(
        data.dataset,
        split=data.split,
        image_column=data.image_column,
        label_column=data.label_column,
        segmentation_column=data.segmentation_column,
        num_images=data.num_images,
        resolution=data.resolution,
    )


def load_images(source: Any, recipe: Recipe, resolution: int, compute: Compute) -> ImageSet:
    """Read images as squares of so many pixels a side, and name those that cannot be read.

    Raises:
        DataError: fewer than two can be read, or the cache cannot be written.
    """
    from gtool.data import cache

    data = recipe.data
    if source.note:
        console.notice(source.note)
    with console.progress(f"reading {source.name}") as update:
        images = cache.load_images(
            source,
            resolution,
            crop=data.crop,
            budget_gb=data.cache_gb,
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
