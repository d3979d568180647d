"""Images decoded and resized once into a memory-mapped array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gtool.checkpoint import atomic_write, cache_dir


@dataclass(frozen=True)
class ImageSet:
    """Images of one resolution, ready to train on."""

    images: Any  # uint8 (N, 3, R, R), memory-mapped
    labels: np.ndarray | None
    fingerprint: str
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)


def load_images(
    source: Any,
    resolution: int,
    *,
    crop: str = "center",
    budget_gb: float = 4.0,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """Return the images of a source as squares of `resolution` pixels."""
    path = cache_dir() / "pixels" / f"{source.fingerprint}-{resolution}.npy"
    if not path.exists():
        total = len(source)
        with atomic_write(path) as temporary:
            array = np.lib.format.open_memmap(
                temporary, mode="w+", dtype=np.uint8, shape=(total, 3, resolution, resolution)
            )
            for start in range(0, total, 500):
                stop = min(start + 500, total)
                array[start:stop] = source.draw(np.arange(start, stop))
                if progress:
                    progress(stop, total)
            array.flush()
    return ImageSet(np.load(path, mmap_mode="r"), None, source.fingerprint)
