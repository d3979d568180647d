"""FID: the Frechet distance of Inception features, computed by the protocols of clean-fid.

Heusel et al. 2017 (GANs Trained by a Two Time-Scale Update Rule), section 4; resizing after Parmar et al.
2022. clean-fid 0.1.35 gives the same numbers to 1e-4 (tests/benchmarks/fid_agreement.py) where it runs at
all: its own distance fails on SciPy >= 1.18, so nothing of it is called here.

Features are streamed into fp64 moments. The rows themselves are kept while there are fewer of them than
dimensions, where the distance has a better formula, or when another metric asks for them.

D = 2048 dimensions of a feature.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gtool.metrics.inception import SIZE, Inception
from gtool.metrics.moments import Gaussian, Moments, fit, frechet, frechet_of_rows, require_two
from gtool.metrics.resize import to_input

ROWS_AT_ONCE = 2048  # rows per update of the moments: a product of this height runs at full speed
NEEDED = SIZE  # below this many images the covariance is singular and FID is mostly bias
COMPARABLE = 10_000  # below this many nobody publishes FIDs


@dataclass(frozen=True)
class Features:
    """The features of one set: all rows (N, 2048) fp32, or their moments, or both."""

    count: int
    rows: Tensor | None
    moments: Moments | None

    @cached_property
    def gaussian(self) -> Gaussian:
        """Mean and covariance; DataError below two images."""
        if self.moments is not None:
            return self.moments.gaussian()
        assert self.rows is not None
        return fit(self.rows)


class FeatureCollector:
    """Takes rows as they come and keeps what a distance will need.

    keep_rows: keep every row (8 kB an image), as KID needs them.
    """

    def __init__(self, *, keep_rows: bool = False) -> None:
        self.keep_rows = keep_rows
        self.count = 0
        self._rows: list[Tensor] = []
        self._waiting: list[Tensor] = []
        self._moments = Moments(SIZE)

    def add(self, rows: Tensor) -> None:
        """Take (n, 2048) rows."""
        rows = rows.detach().cpu()
        self.count += len(rows)
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._moments.add(torch.cat(self._waiting))
        if self.keep_rows:
            self._rows += self._waiting
        self._waiting = []

    def features(self) -> Features:
        """Return everything taken so far; DataError below two images or for rows that are not finite."""
        require_two(self.count)
        if not self._moments.count:
            return Features(self.count, torch.cat(self._waiting), None)
        if self._waiting:
            self._flush()
        return Features(self.count, torch.cat(self._rows) if self.keep_rows else None, self._moments)


def fid(fake: Features, real: Features) -> float:
    """Return the FID of two sets."""
    if fake.rows is not None and real.rows is not None and max(fake.count, real.count) < SIZE:
        return frechet_of_rows(fake.rows, real.rows)
    return frechet(real.gaussian, fake.gaussian)


class Extractor:
    """From uint8 images of any size to Inception features, by one protocol."""

    def __init__(self, network: Inception, mode: str = "clean") -> None:
        self.network = network
        self.mode = mode
        self.device = next(network.parameters()).device

    def __call__(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Return (N, 2048) fp32 features on the CPU.

        images: uint8 (N, 3, H, W), or N images (3, H, W) of any sizes.
        """
        whole = isinstance(images, Tensor) or len({image.shape for image in images}) == 1
        batches: Iterable[Tensor]
        if whole:
            batches = [images if isinstance(images, Tensor) else torch.stack(list(images))]
        else:
            batches = [image[None] for image in images]
        inputs = [to_input(batch.to(self.device), self.mode) for batch in batches]
        features: Tensor = self.network(torch.cat(inputs))
        return features.cpu()
