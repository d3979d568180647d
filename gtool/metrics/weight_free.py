"""The scores that need no weights, RFD and SWD, each beside its floor: the score of other real images.

The floor says what a perfect generator would get at this number of images, so `value / floor` near 1 means that the
metric can tell no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtool.errors import DataError
from gtool.metrics.features.collector import Features
from gtool.metrics.images import Images, Subset
from gtool.metrics.rfd import RandomFeatures, rfd
from gtool.metrics.swd import MAX_IMAGES, PatchProjections, swd
from gtool.runtime.random import derive_seed, permutation


class WeightFreeScorer:
    """RFD and SWD against a reference, each with the value that real images get.

    Both metrics fall with the number of images, so a set and the floor are scored at one number: the set's, or `limit`,
    the floor's, where that is smaller.
    """

    def __init__(self, reference: Images, floor: Images, *, device: torch.device | str = "cpu") -> None:
        self.limit = len(floor)
        self.random = RandomFeatures(reference, device=device)
        self.patches = PatchProjections(reference, device=device)
        self._reference = {name: Features.of(rows) for name, rows in self.features(reference).items()}
        self._floor = self.features(floor)
        self._floors: dict[int, dict[str, float]] = {}  # training asks for the same number at every tick

    @classmethod
    def build(
        cls, real: Images, *, num: int = 2000, seed: int = 0, device: torch.device | str = "cpu"
    ) -> WeightFreeScorer:
        """Split a seeded permutation of `real` into `num` reference images and `num` for the floor.

        real: uint8 (N, 3, R, R). Halves are taken when N < 2 * num. DataError below 4 images.
        """
        num = min(num, len(real) // 2)
        if num < 2:
            raise DataError(f"a reference and its floor need at least 4 real images; got {len(real)}")
        order = permutation(len(real), derive_seed("yardstick", seed))
        # Each part in the order of the set: a memory map is read forwards.
        reference, floor = (np.sort(part) for part in (order[:num], order[num : 2 * num]))
        return cls(Subset(real, reference), Subset(real, floor), device=device)

    def features(self, images: Images, positions: Tensor | None = None) -> dict[str, Tensor]:
        """Return `random` and `patches` of images uint8 (N, 3, R, R), of those alone that lie below the limit.

        positions: ascending, of the images in their set (N,) when this is a part of it; 0, 1, ... when left out.
        """
        places = torch.arange(len(images)) if positions is None else positions
        found = {}
        for name, limit in (("random", self.limit), ("patches", min(self.limit, MAX_IMAGES))):
            count = int((places < limit).sum())
            below: Any = images if count == len(images) else images[:count]
            found[name] = getattr(self, name)(below, places[:count].numpy()) if count else torch.empty(0)
        return found

    def score(self, images: Images) -> dict[str, float]:
        """Score images (M, 3, R, R) uint8, M >= 2; see `score_features`."""
        rows = {name: Features.of(found) for name, found in self.features(images).items()}
        return self.score_features(rows)

    def score_features(self, fake: Mapping[str, Features], *, intervals: bool = False) -> dict[str, float]:
        """Return rfd, rfd_floor, then swd_<side>, swd_<side>_floor from the finest level to swd_16.

        Then the counts: num_real in the reference, num_fake scored, which is also the number of the floor. With
        intervals `rfd.low` and `rfd.high` too, and so on. DataError below two images.
        """
        count = fake["random"].count
        if count not in self._floors:
            floor = {name: Features.of(rows[:count]) for name, rows in self._floor.items()}
            self._floors[count] = self._distances(floor, False)
        scores: dict[str, float] = {}
        for name, value in self._distances(fake, intervals).items():
            scores[name] = value
            if name in self._floors[count]:
                scores[f"{name}_floor"] = self._floors[count][name]
        return scores | {"num_real": self.limit, "num_fake": count}

    def _distances(self, fake: Mapping[str, Features], intervals: bool) -> dict[str, Any]:
        real = self._reference
        found = rfd(fake["random"], real["random"], interval=intervals)
        return found | swd(fake["patches"], real["patches"], interval=intervals)
