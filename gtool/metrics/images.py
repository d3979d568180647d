"""What metrics take: uint8 images (N, 3, H, W) of any container, read in chunks that bound the memory."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gtool.errors import DataError

SMALLEST = 16  # pixels per side


class Images(Protocol):
    """Anything that slices to uint8 images (N, 3, H, W): a tensor, an array, a memory map, a `Subset`.

    Where some of them are chosen, an array of indices picks them too.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> object: ...


class Subset:
    """A view of some images of a larger set, read only when sliced."""

    def __init__(self, images: Images, indices: np.ndarray) -> None:
        self.images = images
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: slice) -> object:
        return self.images[self.indices[index]]


def as_tensor(images: object) -> Tensor:
    """Return uint8 (N, 3, H, W); DataError for any other type or shape."""
    tensor = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    if tensor.dtype != torch.uint8 or tensor.ndim != 4 or tensor.shape[1] != 3:
        raise DataError(f"metrics need uint8 images (N, 3, H, W); got {tensor.dtype} {tuple(tensor.shape)}")
    if min(tensor.shape[2:]) < SMALLEST:
        raise DataError(f"metrics need {SMALLEST} px a side; got {tensor.shape[3]} x {tensor.shape[2]}")
    return tensor


def in_chunks(
    images: Images, count: int, pixels: int, total: int | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Yield (index of the first, uint8 tensor) for chunks of `count` images and `pixels` pixels at most.

    The cuts depend on the images' size only, so results do not depend on who asks; `total` stops early.
    """
    stop = len(images) if total is None else min(total, len(images))
    height, width = as_tensor(images[:1]).shape[2:] if stop else (1, 1)
    step = max(1, min(count, pixels // (height * width)))
    for start in range(0, stop, step):
        yield start, as_tensor(images[start : min(start + step, stop)])


def in_batches(images: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return uint8 (N, 3, H, W), or N images (3, H, W), as one batch where all have one size, else one by one."""
    if isinstance(images, Tensor):
        return [images]
    same = len({image.shape for image in images}) == 1
    return [torch.stack(list(images))] if same else [image[None] for image in images]
