"""Endless batches whose order is a function of (seed, position): exact resume, any number of processes.

Every epoch is a permutation of all images, batches run on across its end, and flips are decided image by
image. The whole resume state is `position`, the number of images drawn so far by all processes together.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gtool.data.cache import ImageSet
from gtool.data.lazy import LazyImages
from gtool.device import derive_seed, hashed_uniform
from gtool.errors import DataError


class Batches:
    """An endless stream of training batches; this process gets its contiguous share of each.

    image_set: from `load_images`; images that are decoded on access are read one batch ahead.
    """

    def __init__(
        self, image_set: ImageSet, *, seed: int, flip: bool, rank: int = 0, world_size: int = 1
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size} processes")
        self.image_set = image_set
        self.seed = seed
        self.flip = flip
        self.rank = rank
        self.world_size = world_size
        self.position = 0
        self._orders: dict[int, np.ndarray] = {}

    def next(self, batch_size: int) -> Tensor:
        """Return the next (batch_size / world_size, 3, R, R) uint8 images and move on by the whole batch.

        Raises:
            DataError: the batch cannot be shared evenly.
        """
        if batch_size % self.world_size:
            raise DataError(f"a batch of {batch_size} cannot be shared by {self.world_size} processes")
        share = batch_size // self.world_size
        start = self.position + self.rank * share
        positions = np.arange(start, start + share)
        self.position += batch_size
        images = self._read(positions)
        if isinstance(self.image_set.images, LazyImages):
            self.image_set.images.prefetch(self.order(positions + batch_size))
        return torch.from_numpy(images)

    def _read(self, positions: np.ndarray) -> np.ndarray:
        images = np.asarray(self.image_set.images[self.order(positions)])
        if self.flip:
            chosen = hashed_uniform(self.seed, positions, 1, "flip")[:, 0] < 0.5
            images[chosen] = images[chosen, :, :, ::-1]
        return images

    def order(self, positions: np.ndarray) -> np.ndarray:
        """Return which image is shown at each position (n,)."""
        epochs, places = np.divmod(positions, len(self.image_set))
        shown = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            shown[here] = self._order_of(int(epoch))[places[here]]
        return shown

    def _order_of(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            random = np.random.Generator(np.random.Philox(derive_seed(self.seed, "order", epoch)))
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
            self._orders[epoch] = random.permutation(len(self.image_set))
        return self._orders[epoch]
