"""What images are generated from, as token ids: one for the image, or one for each cell of a grid.

none         0.
class        the label; one more than the largest is "no label".
segmentation the most frequent label of each cell; likewise.
depth        the mean of each cell in DEPTH_LEVELS steps from the image's smallest to its largest; DEPTH_LEVELS
             itself is "no depth".

Wherever there is something to say, the last id says nothing.

Axis letters: N images, h w grid of codes, R resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtool.data.label_maps import majority
from gtool.data.loader import Batches, read_conditions
from gtool.data.pixel_cache import ImageSet

DEPTH_LEVELS = 64
CHUNK = 1024  # images whose maps are read at a time


def condition_size(images: ImageSet) -> int:
    """Return how many ids there are."""
    return DEPTH_LEVELS + 1 if images.condition == "depth" else images.condition_size


def ids_of_maps(maps: Any, grid: tuple[int, int]) -> Tensor:
    """Return label maps (N, H, W) as int64 (N, h, w)."""
    return torch.from_numpy(majority(maps, grid).astype(np.int64))


def ids_of_depth(depth: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return depth (N, 1, H, W) in [-1, 1] as int64 (N, h, w)."""
    n, _, height, width = depth.shape
    cells = depth.view(n, grid[0], height // grid[0], grid[1], width // grid[1]).mean(dim=(2, 4))
    return ((cells + 1) / 2 * (DEPTH_LEVELS - 1)).round().long().clamp_(0, DEPTH_LEVELS - 1)


def read_ids(
    images: ImageSet, indices: np.ndarray, grid: tuple[int, int], flipped: np.ndarray | None = None
) -> Tensor:
    """Return the ids of some images, int64 (n, 1) or (n, h w)."""
    parts = []
    for start in range(0, len(indices), CHUNK):
        part = slice(start, start + CHUNK)
        read = read_conditions(images, indices[part], None if flipped is None else flipped[part])
        if images.condition == "segmentation":
            read = ids_of_maps(read.numpy(), grid).flatten(1)
        elif images.condition == "depth":
            read = ids_of_depth(read, grid).flatten(1)
        else:
            read = read[:, None]
        parts.append(read)
    return torch.cat(parts)


@dataclass
class CodeBatches:
    """Endless batches of codes with the ids of their conditions, in the order of `Batches`.

    batches: says which images come next, and which of them mirrored.
    codes: integers (versions x N, h, w), from `load_codes`; the second version is the mirrored one.
    conditions: int64 (versions x N, M), likewise.
    """

    batches: Batches
    codes: np.ndarray
    conditions: Tensor

    @property
    def position(self) -> int:
        """Sequences drawn so far, by all processes together."""
        return self.batches.position

    @position.setter
    def position(self, position: int) -> None:
        self.batches.position = position

    def next(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Return this process's share of the next batch: codes int64 (n, h, w) and conditions int64 (n, M)."""
        indices, flipped = self.batches.draw(batch_size)
        rows = indices + flipped * len(self.batches.image_set)
        return torch.from_numpy(self.codes[rows].astype(np.int64)), self.conditions[torch.from_numpy(rows)]
