"""One reference set with its floor: the weight-free scores that training prints and `gtool eval` starts from.

The floor is the score of other real images. It says what a perfect generator would get at this number of
images, so `value / floor` near 1 means that the metric can tell no difference.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gtool.errors import DataError
from gtool.metrics.frechet import require_two
from gtool.metrics.images import Images, Indexable, Subset, in_chunks, permutation
from gtool.metrics.rfd import RandomFrechet
from gtool.metrics.swd import MAX_IMAGES, Projections, SlicedWasserstein, join
from gtool.runtime.random import derive_seed

CHUNK = 128  # images a candidate is taken in by: fixed, so that scores do not depend on a batch size
CHUNK_PIXELS = 128 * 256 * 256


class Yardstick:
    """RFD and SWD against a reference, each with the value that real images get.

    reference, floor: uint8 (N, 3, R, R), disjoint. Both metrics fall with the number of images, so a
    candidate and its floor are scored at one number: the candidate's, or the floor's where that is smaller.
    """

    def __init__(self, reference: Images, floor: Images, *, device: torch.device | str = "cpu") -> None:
        self.num_real = len(reference)
        self.swd = SlicedWasserstein(reference, device=device)
        self.rfd = RandomFrechet(reference, device=device)
        self._floor = Candidate(self, limit=len(floor))
        self._floor.add(floor)
        self._floors: dict[int, dict[str, float]] = {}

    @classmethod
    def build(
        cls, real: Indexable, *, num: int = 2000, seed: int = 0, device: torch.device | str = "cpu"
    ) -> Yardstick:
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

    def candidate(self) -> Candidate:
        """Return an empty set that can be filled batch by batch and scored against this yardstick."""
        return Candidate(self, limit=self._floor.count)

    def score(self, fake: Images) -> dict[str, float]:
        """Score images (M, 3, R, R) uint8 with M >= 2; see `Candidate.scores`."""
        candidate = self.candidate()
        candidate.add(fake)
        return candidate.scores()

    def floors(self, count: int) -> dict[str, float]:
        """Return the distances by name of the first `count` floor images."""
        if count not in self._floors:
            self._floors[count] = self._floor.distances(count)
        return self._floors[count]


class Candidate:
    """A set of images on its way to a score; holds features and projections, not the images.

    Parts taken apart add up to the whole. limit: images beyond so many are passed over.
    """

    def __init__(self, yardstick: Yardstick, limit: int) -> None:
        self.yardstick = yardstick
        self.limit = limit
        self.count = 0  # images taken, of which the last few wait for their chunk to fill
        self._waiting: tuple[Tensor, Tensor] | None = None  # images and their positions in the whole set
        self._positions: list[Tensor] = []  # (n,) each, int64
        self._features: list[Tensor] = []
        self._projections: list[Projections] = []

    def add(self, images: Images, positions: Tensor | None = None) -> None:
        """Take a batch (n, 3, R, R) uint8 of any n; DataError when its resolution is another than before.

        positions: of the images in the whole set (n,), when this is a part of it; in order when left out.
        """
        if positions is not None:
            inside = positions < self.limit
            images, positions = torch.as_tensor(images)[inside], positions[inside]
        first = self.count
        total = None if positions is not None else self.limit - first
        for start, chunk in in_chunks(images, CHUNK, CHUNK_PIXELS, total=total):
            places = torch.arange(first + start, first + start + len(chunk))
            self._take(chunk, places if positions is None else positions[start : start + len(chunk)])

    def _take(self, chunk: Tensor, positions: Tensor) -> None:
        if self._waiting is not None:
            images, before = self._waiting
            if images.shape[1:] != chunk.shape[1:]:
                raise DataError("the images of a set must have one size for rfd and swd")
            chunk, positions = torch.cat([images, chunk]), torch.cat([before, positions])
            self.count -= len(images)
        self.count += len(chunk)
        while len(chunk) >= CHUNK:
            self._measure(chunk[:CHUNK], positions[:CHUNK])
            chunk, positions = chunk[CHUNK:], positions[CHUNK:]
        self._waiting = chunk, positions

    def tensors(self) -> dict[str, Tensor]:
        """Return everything taken so far, for `absorb` of another candidate of the same yardstick."""
        self._flush()
        if not self._features:
            return {}
        levels = join(self._projections).levels if self._projections else {}
        found = {"positions": torch.cat(self._positions), "features": torch.cat(self._features)}
        return found | {f"swd_{level}": rows for level, rows in levels.items()}

    def absorb(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what another candidate of the same yardstick has taken."""
        if not tensors:
            return
        self._positions.append(tensors["positions"])
        self._features.append(tensors["features"])
        levels = {
            int(name.removeprefix("swd_")): rows for name, rows in tensors.items() if name.startswith("swd_")
        }
        if levels:
            self._projections.append(Projections(levels))
        self.count += len(tensors["positions"])

    def scores(self) -> dict[str, float]:
        """Return rfd, rfd_floor, then swd_<side>, swd_<side>_floor from the finest level to swd_16.

        Then the counts: num_real in the reference, num_fake scored, which is also the number of the floor.
        DataError below two images.
        """
        values = self.distances()
        floors = self.yardstick.floors(self.count)
        scores: dict[str, float] = {}
        for name, value in values.items():
            scores |= {name: value, f"{name}_floor": floors[name]}
        return scores | {"num_real": self.yardstick.num_real, "num_fake": self.count}

    def distances(self, count: int | None = None) -> dict[str, float]:
        """Return the distances by name of the first `count` images, or of all."""
        self._flush()
        require_two(self.count)
        positions = torch.cat(self._positions)
        projected = positions[positions < MAX_IMAGES]
        features = torch.cat(self._features)[positions.argsort()[:count]]
        projections = join(self._projections).pick(projected.argsort()[:count])
        swd = self.yardstick.swd.distance_of_projections(projections)
        rfd = self.yardstick.rfd.distance_of_features(features)
        return {"rfd": rfd} | {f"swd_{level}": value for level, value in swd.items()}

    def _flush(self) -> None:
        if self._waiting is not None and len(self._waiting[0]):
            self._measure(*self._waiting)
        self._waiting = None

    def _measure(self, images: Tensor, positions: Tensor) -> None:
        inside = positions < MAX_IMAGES
        if bool(inside.any()):
            places = positions[inside].numpy()
            self._projections.append(self.yardstick.swd.project(images[inside], places))
        self._positions.append(positions)
        self._features.append(self.yardstick.rfd.features(images))
