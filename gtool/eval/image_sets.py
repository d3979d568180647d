"""The two sides of a comparison: images that a generator makes, and images of a folder or data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gtool import console
from gtool.data.dataset import ImageDataset
from gtool.data.open import open_dataset
from gtool.data.pixel_cache import load_images
from gtool.data.threads import in_order
from gtool.errors import DataError, printable
from gtool.eval.image_checks import find_damaged, look_at, look_beside, tolerate
from gtool.io.image import UnreadableImage, quiet_pillow
from gtool.models.generate import batches
from gtool.nn.ranges import to_uint8
from gtool.runtime.device import Compute
from gtool.runtime.random import derive_seed, permutation

Batch = Tensor | list[Tensor]  # uint8 (n, 3, H, W), or n images (3, H, W) of different sizes


class Candidate(Protocol):
    """Images that are scored, in an order of their own."""

    @property
    def count(self) -> int: ...

    def part(self, start: int, stop: int) -> Candidate: ...

    def batches(self, batch_size: int) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Generated:
    """Images that a generator makes as they are asked for; image i is a function of (seed, i)."""

    generator: torch.nn.Module
    compute: Compute
    seed: int
    count: int
    start: int = 0  # number of the first image

    def part(self, start: int, stop: int) -> Generated:
        """Return images `start` to `stop` alone."""
        return replace(self, start=self.start + start, count=stop - start)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield uint8 (b, 3, R, R); DataError for values that are not finite, which would become grey levels."""
        indices = torch.arange(self.start, self.start + self.count)
        done = self.start
        for images, _ in batches(self.generator, self.seed, indices, self.compute, batch_size=batch_size):
            if not torch.isfinite(images).all():
                raise DataError(
                    f"the generator makes values that are not finite (images {done} to {done + len(images) - 1})"
                )
            done += len(images)
            yield to_uint8(images).cpu()


class NativeImages:
    """The images of a source at the size they have."""

    def __init__(self, source: ImageDataset, places: np.ndarray) -> None:
        """Read from `source` the images at `places` (N,)."""
        self.source = source
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def _read(self, place: int) -> Tensor:
        """Return uint8 (3, H, W)."""
        return torch.from_numpy(np.array(self.source.read(place).transpose(2, 0, 1), order="C"))

    def __getitem__(self, index: np.ndarray) -> Tensor:
        return one_size(list(self.read_all(index)), self.source.name)

    def read_all(self, index: np.ndarray, ahead: int = 0) -> Iterator[Tensor]:
        """Yield images in order, decoded by all cores, so many ahead; DataError names all that are damaged."""
        places = self.places[index]
        try:
            with quiet_pillow():
                yield from in_order(self._read, map(int, places), ahead=ahead)
        except UnreadableImage:
            find_damaged(self.source, places, 0, {})
            raise


def one_size(images: Batch, name: str) -> Tensor:
    """Return the batch as one tensor; DataError when the images have several sizes."""
    if isinstance(images, Tensor):
        return images
    sizes = sorted({f"{image.shape[2]}x{image.shape[1]}" for image in images})
    if len(sizes) > 1:
        raise DataError(
            f"{name}: images of several sizes ({', '.join(sizes[:3])}), and rfd and swd need one; "
            "crop and resize both sides with --resolution R"
        )
    return torch.stack(images)


@dataclass(frozen=True)
class Stored:
    """Chosen images of a folder or data set; `images` is a pixel array (N, 3, R, R) or `NativeImages`."""

    name: str  # as in protocol strings
    images: Any
    chosen: np.ndarray
    key: dict[str, str | int]  # what the pixels depend on
    makeup: dict[str, Any]  # for the record: formats, modes, what was left out

    @property
    def count(self) -> int:
        return len(self.chosen)

    def part(self, start: int, stop: int) -> Stored:
        """Return images `start` to `stop` alone."""
        return replace(self, chosen=self.chosen[start:stop])

    def batches(self, batch_size: int) -> Iterator[Batch]:
        if isinstance(self.images, NativeImages):
            yield from _grouped(self.images.read_all(self.chosen, ahead=batch_size), batch_size)
            return
        for start in range(0, self.count, batch_size):
            yield torch.from_numpy(np.array(self.images[self.chosen[start : start + batch_size]]))


def _grouped(images: Iterator[Tensor], size: int) -> Iterator[list[Tensor]]:
    while group := list(islice(images, size)):
        yield group


@dataclass(frozen=True)
class Wanted:
    """How to open a folder or data set; `resolution` None keeps the images' own size.

    crop: `center` or `fit`; of images that keep their size, whether those that are not square are accepted.
    sized: the resolution was asked for, and is not that of a model; then it is part of the name.
    skip_bad: how many images may be unreadable; None is any number, as in training.
    strict: refuse a folder with files that are no images.
    """

    dataset: str
    split: str
    resolution: int | None
    crop: str = "center"
    columns: tuple[str | None, str | None, str | None] = (None, None, None)
    num_images: int | None = None
    cache_gb: float = 4.0
    skip_bad: int | None = 0
    strict: bool = False
    sized: bool = False


def open_stored(wanted: Wanted, num: int | None, seed: int) -> Stored:
    """Open a data set and choose all its images, or `num` of them by the seed; look at each before it is scored.

    Raises:
        DataError: nothing there, more unreadable images than tolerated, images that are not square.
    """
    image, label, segmentation = wanted.columns
    source = open_dataset(
        wanted.dataset,
        split=wanted.split,
        image_column=image,
        label_column=label,
        segmentation_column=segmentation,
        num_images=wanted.num_images,
        resolution=wanted.resolution,
        arrays=True,
    )
    if note := getattr(source, "note", None):
        console.notice(note)
    makeup = look_beside(source, wanted)
    places = np.arange(len(source))
    images: Any
    if wanted.resolution is not None:
        images, places = _load(source, wanted, makeup)
    else:
        if wanted.skip_bad != 0:
            places = np.delete(places, find_damaged(source, places, wanted.skip_bad, makeup))
        images = NativeImages(source, places)
    chosen = np.arange(len(places))
    if num is not None and num < len(places):
        chosen = np.sort(permutation(len(places), derive_seed("eval", seed))[:num])
    is_part = len(chosen) < len(places)
    if is_part:
        makeup["chosen_from"] = len(places)
    if len(chosen) < 2:
        raise DataError(f"{source.name}: {len(chosen)} images can be read; at least 2 are needed")
    content = look_at(source, places[chosen], wanted, makeup)
    key: dict[str, str | int] = {"source": content, "resolution": wanted.resolution or 0}
    key |= {"crop": wanted.crop, "num": len(chosen), "seed": seed if is_part else 0}
    return Stored(short_name(wanted), images, chosen, key, makeup)


def _load(source: ImageDataset, wanted: Wanted, makeup: dict[str, Any]) -> tuple[Any, np.ndarray]:
    """Return the pixels of one resolution, and which images of the source they are."""
    assert wanted.resolution is not None
    with console.progress(f"reading {source.name}") as update:
        loaded = load_images(
            source,
            wanted.resolution,
            crop=wanted.crop,
            budget_gb=wanted.cache_gb,
            progress=lambda done, total: update(done, total, f"{done:,} of {total:,} images"),
        )
    tolerate(loaded.skipped, source.name, wanted.skip_bad, makeup)
    if not loaded.skipped:
        return loaded.images, np.arange(len(source))
    left_out = {name for name, _ in loaded.skipped}
    kept = [index for index in range(len(source)) if source.name_of(index) not in left_out]
    return loaded.images, np.array(kept, np.int64)


def short_name(wanted: Wanted) -> str:
    """Return `cifar10-train` for a data set with splits, the bare name for a folder; behind it `@32px` and `@fit`."""
    path = Path(wanted.dataset).expanduser()
    name = path.resolve().name if path.exists() else f"{wanted.dataset.split('/')[-1]}-{wanted.split}"
    return (
        printable(name)
        + (f"@{wanted.resolution}px" if wanted.sized else "")
        + ("@fit" if wanted.crop == "fit" else "")
    )
