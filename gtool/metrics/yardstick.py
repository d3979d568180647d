"""One reference set with its floor: the weight-free scores that training prints and `gtool eval` starts from.

The floor is the score of other real images. It says what a perfect generator would get at this number of
images, so `value / floor` near 1 means that the metric can tell no difference.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from gtool.device import derive_seed
from gtool.errors import DataError
from gtool.metrics.rfd import Images, RandomFrechet, as_tensor
from gtool.metrics.swd import SlicedWasserstein


class Indexable(Protocol):
    """uint8 images (N, 3, R, R) that can be picked by an array of indices."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: np.ndarray) -> object: ...


class Yardstick:
    """RFD and SWD against a reference, each with the value that real images get.

    reference, floor: uint8 (N, 3, R, R), disjoint. The floor is scored at the number of images a candidate
    has, as far as there are as many, because both metrics fall with that number.
    """

    def __init__(self, reference: Images, floor: Images, *, device: torch.device | str = "cpu") -> None:
        self.num_real = len(reference)
        self._rfd = RandomFrechet(reference, device=device)
        self._swd = SlicedWasserstein(reference, device=device)
        self._floor_features = self._rfd.features(floor)
        self._floor_projections = self._swd.project(floor)
        self._floors: dict[int, dict[str, float]] = {}

    @classmethod
    def build(
        cls, real: Indexable, *, num: int = 2000, seed: int = 0, device: torch.device | str = "cpu"
    ) -> Yardstick:
        """Split a seeded permutation of `real` into `num` reference images and `num` for the floor.

        Halves are taken when there are fewer than 2 * num. DataError below 4 images.
        """
        num = min(num, len(real) // 2)
        if num < 2:
            raise DataError(f"a reference and its floor need at least 4 real images; got {len(real)}")
        # RandomState because NumPy promises that its stream never changes.
        order = np.random.RandomState(derive_seed("yardstick", seed) % 2**32).permutation(len(real))
        reference, floor = (as_tensor(real[np.sort(part)]) for part in (order[:num], order[num : 2 * num]))
        return cls(reference, floor, device=device)

    def score(self, fake: Images) -> dict[str, float]:
        """Score images (M, 3, R, R) uint8 with M >= 2.

        Returns rfd, rfd_floor, then swd_<side>, swd_<side>_floor from the finest level to swd_16, and the
        counts num_real, num_fake, num_floor.
        """
        values = self._named(self._rfd.distance(fake), self._swd.distance(fake))
        num_floor = min(len(fake), len(self._floor_features))
        floors = self._floor(num_floor)
        scores = {}
        for name, value in values.items():
            scores[name] = value
            scores[f"{name}_floor"] = floors[name]
        return scores | {"num_real": self.num_real, "num_fake": len(fake), "num_floor": num_floor}

    def _floor(self, count: int) -> dict[str, float]:
        if count not in self._floors:
            features = self._floor_features[:count]
            projections = self._floor_projections.first(count)
            self._floors[count] = self._named(
                self._rfd.distance_of_features(features), self._swd.distance_of_projections(projections)
            )
        return self._floors[count]

    @staticmethod
    def _named(rfd: float, swd: dict[int, float]) -> dict[str, float]:
        return {"rfd": rfd} | {f"swd_{level}": value for level, value in swd.items()}
