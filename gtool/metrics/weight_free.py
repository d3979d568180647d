"""The scores that need no weights, RFD and SWD, each beside its floor: the score of other real images.

The floor says what a perfect generator would get at this number of images, so `value / floor` near 1 means that the
metric can tell no difference.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gtool.errors import DataError
from gtool.metrics.features.collector import FeatureCollector, Features
from gtool.metrics.images import Images, Subset, in_chunks
from gtool.metrics.rfd import CHUNK, CHUNK_PIXELS, RandomFeatures, rfd
from gtool.metrics.swd import MAX_IMAGES, PatchProjections, swd
from gtool.runtime.random import derive_seed, permutation


class WeightFreeScorer:
    """RFD and SWD against a reference, each with the value that real images get.

    reference, floor: uint8 (N, 3, R, R), disjoint. Both metrics fall with the number of images, so a set and the floor
    are scored at one number: the set's, or the floor's where that is smaller.
    """

    def __init__(self, reference: Images, floor: Images, *, device: torch.device | str = "cpu") -> None:
        self.num_real = len(reference)
        self.random = RandomFeatures(reference, device=device)
        self.patches = PatchProjections(reference, device=device)
        self._reference = self._features(reference, len(reference))
        self._floor = self._features(floor, len(floor))
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

    def collector(self) -> WeightFreeCollector:
        """Return an empty set that can be filled batch by batch and scored."""
        return WeightFreeCollector(self, limit=self._floor["random"].count)

    def score(self, images: Images) -> dict[str, float]:
        """Score images (M, 3, R, R) uint8, M >= 2; see `score_features`."""
        return self.score_features(self._features(images, self._floor["random"].count))

    def score_features(self, fake: Mapping[str, Features]) -> dict[str, float]:
        """Return rfd, rfd_floor, then swd_<side>, swd_<side>_floor from the finest level to swd_16.

        Then the counts: num_real in the reference, num_fake scored, which is also the number of the floor.
        DataError below two images.
        """
        values, count = self._distances(fake), fake["random"].count
        if count not in self._floors:
            first = {name: Features.of(found.all_rows[:count]) for name, found in self._floor.items()}
            self._floors[count] = self._distances(first)
        scores: dict[str, float] = {}
        for name, value in values.items():
            scores |= {name: value, f"{name}_floor": self._floors[count][name]}
        return scores | {"num_real": self.num_real, "num_fake": count}

    def _features(self, images: Images, limit: int) -> dict[str, Features]:
        collector = WeightFreeCollector(self, limit)
        collector.add(images)
        return collector.features()

    def _distances(self, fake: Mapping[str, Features]) -> dict[str, float]:
        real = self._reference
        return rfd(fake["random"], real["random"]) | swd(fake["patches"], real["patches"])


class WeightFreeCollector:
    """The random features and patches of a set of images, taken batch by batch; parts add up to the whole.

    limit: images from this position on are passed over.
    """

    def __init__(self, scorer: WeightFreeScorer, limit: int) -> None:
        self.scorer = scorer
        self.limit = limit
        self.collectors = {name: FeatureCollector(keep_rows=True) for name in ("random", "patches")}
        self._size: torch.Size | None = None

    def add(self, images: Images, positions: Tensor | None = None) -> None:
        """Take a batch (n, 3, R, R) uint8 of any n; DataError when its resolution is another than before.

        positions: of the images in the whole set (n,), when this is a part of it; in order when left out.
        """
        count = self.collectors["random"].count
        positions = torch.arange(count, count + len(images)) if positions is None else positions
        for start, chunk in in_chunks(images, CHUNK, CHUNK_PIXELS):
            self._size = self._size or chunk.shape[1:]
            if chunk.shape[1:] != self._size:
                raise DataError("the images of a set must have one size for rfd and swd")
            places = positions[start : start + len(chunk)]
            limits = {"random": self.limit, "patches": min(self.limit, MAX_IMAGES)}
            for name, limit in limits.items():
                if bool((inside := places < limit).any()):
                    rows = getattr(self.scorer, name)(chunk[inside], places[inside].numpy())
                    self.collectors[name].add(rows, places[inside])

    def tensors(self) -> dict[str, Tensor]:
        """Return everything taken so far, for `absorb` of another collector of the same scorer."""
        parts = {name: collector.tensors() for name, collector in self.collectors.items()}
        return {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.items()}

    def absorb(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what another collector of the same scorer has taken."""
        for name, collector in self.collectors.items():
            start = f"{name}."
            collector.absorb(
                {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}
            )

    def features(self) -> dict[str, Features]:
        """Return what was taken; DataError below two images."""
        return {name: collector.features() for name, collector in self.collectors.items()}

    def scores(self) -> dict[str, float]:
        """Score what was taken."""
        return self.scorer.score_features(self.features())
