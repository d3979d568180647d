"""Endless batches whose order is a function of (seed, position), and what their images are generated from.

Every epoch is a permutation of all images, batches run on across its end, and flips are decided image by
image. The whole resume state is `position`, the number of images drawn so far by all processes together: exact
resume, any number of processes.

Conditions as token ids, one for the image or one for each cell of a grid; the last id is "no label", "no depth":

none         0.
class        the label.
segmentation the most frequent label of each cell.
depth        the mean of each cell in DEPTH_LEVELS steps from the image's smallest to its largest.

Axis letters: N images, h w grid of codes, R resolution.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtool.data.label_maps import DEPTH_LEVELS, majority
from gtool.data.pixel_cache import ImageArrays, Stored
from gtool.errors import DataError
from gtool.runtime.random import derive_seed, hashed_uniform

CHUNK = 1024  # images whose maps are read at a time


class Batches:
    """An endless stream of training batches; this process gets its contiguous share of each.

    image_set: from `load_images`.
    shown: int64 (n,), the images that are shown at all; None for every one.
    """

    def __init__(
        self,
        image_set: ImageArrays,
        *,
        seed: int,
        flip: bool,
        rank: int = 0,
        world_size: int = 1,
        shown: np.ndarray | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size} processes")
        self.image_set = image_set
        self.seed = seed
        self.flip = flip
        self.rank = rank
        self.world_size = world_size
        self.position = 0
        self.shown = np.arange(len(image_set)) if shown is None else shown
        self._orders: dict[int, np.ndarray] = {}

    def next(self, batch_size: int) -> Tensor:
        """Return the next (batch_size / world_size, 3, R, R) uint8 images and move on by the whole batch.

        Raises:
            DataError: the batch cannot be shared evenly.
        """
        return read_images(self.image_set, *self.draw(batch_size))

    def draw(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Move on as `next` and return which images it would show, int64 (n,), and which of them flipped, bool (n,)."""
        if batch_size % self.world_size:
            raise DataError(f"a batch of {batch_size} cannot be shared by {self.world_size} processes")
        share = batch_size // self.world_size
        start = self.position + self.rank * share
        positions = np.arange(start, start + share)
        self.position += batch_size
        if not self.flip:
            return self._images_at(positions), np.zeros(share, bool)
        return self._images_at(positions), hashed_uniform(self.seed, positions, 1, "flip")[:, 0] < 0.5

    def _images_at(self, positions: np.ndarray) -> np.ndarray:
        """Return which image is shown at each position (n,)."""
        epochs, places = np.divmod(positions, len(self.shown))
        found = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            found[here] = self.shown[self._order_of(int(epoch))[places[here]]]
        return found

    def _order_of(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            random = np.random.Generator(np.random.Philox(derive_seed(self.seed, "order", epoch)))
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
            self._orders[epoch] = random.permutation(len(self.shown))
        return self._orders[epoch]


def read_images(image_set: ImageArrays, indices: np.ndarray, flipped: np.ndarray | None = None) -> Tensor:
    """Return a copy of images of a set, uint8 (n, 3, R, R); those that `flipped` (n,) says are mirrored."""
    return torch.from_numpy(_rows(image_set.images, indices, flipped))


def read_conditions(image_set: ImageArrays, indices: np.ndarray, flipped: np.ndarray | None = None) -> Tensor:
    """Return what images of a set are generated from, by the condition that it was loaded with.

    Returns:
        none: int64 (n,) of 0. class: int64 (n,), `num_labels` where unknown. segmentation: int64 (n, R, R) of ids,
        `num_labels` where there is no label. depth: float32 (n, 1, R, R) in [-1, 1].
    """
    if image_set.segmentations is not None:
        return torch.from_numpy(_rows(image_set.segmentations, indices, flipped).astype(np.int64))
    if image_set.depths is not None:
        depth = _rows(image_set.depths, indices, flipped).astype(np.float32)
        return torch.from_numpy(depth * np.float32(2 / 65535) - 1)[:, None]
    if image_set.condition == "none" or image_set.labels is None:
        return torch.zeros(len(indices), dtype=torch.int64)
    labels: np.ndarray = image_set.labels[indices]
    return torch.from_numpy(np.where(labels < 0, image_set.condition_size - 1, labels))


def _rows(stored: Stored, indices: np.ndarray, flipped: np.ndarray | None) -> np.ndarray:
    rows = np.array(stored[indices])
    if flipped is not None:
        rows[flipped] = rows[flipped][..., ::-1]
    return rows


def ids_of_maps(maps: Any, grid: tuple[int, int]) -> Tensor:
    """Return label maps (N, H, W) as int64 (N, h, w)."""
    return torch.from_numpy(majority(maps, grid).astype(np.int64))


def ids_of_depth(depth: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return depth (N, 1, H, W) in [-1, 1] as int64 (N, h, w)."""
    n, _, height, width = depth.shape
    cells = depth.view(n, grid[0], height // grid[0], grid[1], width // grid[1]).mean(dim=(2, 4))
    return ((cells + 1) / 2 * (DEPTH_LEVELS - 1)).round().long().clamp_(0, DEPTH_LEVELS - 1)


def read_ids(
    images: ImageArrays, indices: np.ndarray, grid: tuple[int, int], flipped: np.ndarray | None = None
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
