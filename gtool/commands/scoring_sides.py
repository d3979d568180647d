"""The two sides of a comparison: images that a generator makes, and images of a folder or data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gtool import console
from gtool.data.cache import load_images
from gtool.data.lazy import in_order
from gtool.data.sources import open_source
from gtool.device import Compute, derive_seed
from gtool.engines.generation import generate
from gtool.errors import DataError
from gtool.metrics.images import permutation

Batch = Tensor | list[Tensor]  # uint8 (n, 3, H, W), or n images (3, H, W) of different sizes


class Candidate(Protocol):
    """Images that are scored, in an order of their own."""

    @property
    def count(self) -> int: ...

    def batches(self, batch_size: int) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Generated:
    """Images that a generator makes as they are asked for; image i is a function of (seed, i)."""

    generator: torch.nn.Module
    compute: Compute
    seed: int
    count: int

    def batches(self, batch_size: int) -> Iterator[Batch]:
        yield from generate(
            self.generator, self.seed, torch.arange(self.count), self.compute, batch_size=batch_size
        )


class NativeImages:
    """The images of a source at the size they have."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> Tensor:
        """Return uint8 (3, H, W)."""
        return torch.from_numpy(np.ascontiguousarray(self.source.read(index).transpose(2, 0, 1)))

    def __getitem__(self, index: np.ndarray) -> Tensor:
        images = [self.read(int(i)) for i in index]
        return one_size(images, self.source.name)


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

    @property
    def count(self) -> int:
        return len(self.chosen)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        if isinstance(self.images, NativeImages):
            # Decoded by threads while the batch before is looked at.
            images = in_order(self.images.read, map(int, self.chosen), ahead=batch_size)
            while batch := list(islice(images, batch_size)):
                yield batch
            return
        for start in range(0, self.count, batch_size):
            yield torch.from_numpy(np.array(self.images[self.chosen[start : start + batch_size]]))


@dataclass(frozen=True)
class Wanted:
    """How to open a folder or data set; `resolution` None keeps the images' own size."""

    dataset: str
    split: str
    resolution: int | None
    crop: str = "center"
    columns: tuple[str | None, str | None, str | None] = (None, None, None)
    num_images: int | None = None
    cache_gb: float = 4.0


def open_stored(wanted: Wanted, num: int | None, seed: int) -> Stored:
    """Open a data set and choose all its images, or `num` of them by the seed."""
    image, label, segmentation = wanted.columns
    source = open_source(
        wanted.dataset,
        split=wanted.split,
        image_column=image,
        label_column=label,
        segmentation_column=segmentation,
        num_images=wanted.num_images,
        resolution=wanted.resolution,
    )
    if note := getattr(source, "note", None):
        console.notice(note)
    images: Any = NativeImages(source)
    if wanted.resolution is not None:
        with console.progress(f"reading {source.name}") as update:
            loaded = load_images(
                source,
                wanted.resolution,
                crop=wanted.crop,
                budget_gb=wanted.cache_gb,
                progress=lambda done, total: update(done, total, f"{done:,} of {total:,} images"),
            )
        for name, reason in loaded.skipped:
            console.warning(f"{name}: left out: {reason}")
        images = loaded.images
    count = len(images)
    chosen = np.arange(count)
    if num is not None and num < count:
        chosen = np.sort(permutation(count, derive_seed("eval", seed))[:num])
    key: dict[str, str | int] = {"source": source.fingerprint, "resolution": wanted.resolution or 0}
    key |= {"crop": wanted.crop, "num": len(chosen), "seed": seed if len(chosen) < count else 0}
    return Stored(_short(wanted), images, chosen, key)


def _short(wanted: Wanted) -> str:
    """Return `cifar10-train` for a data set with splits and the bare name for a folder."""
    path = Path(wanted.dataset).expanduser()
    return path.resolve().name if path.exists() else f"{wanted.dataset.split('/')[-1]}-{wanted.split}"
