"""FID: the Frechet distance of Inception features, computed by the protocols of clean-fid.

Heusel et al. 2017 (GANs Trained by a Two Time-Scale Update Rule), section 4; resizing after Parmar et al.
2022. clean-fid 0.1.35 gives the same numbers to 1e-4 (tests/benchmarks/score_agreement.py) where it runs at
all: its own distance fails on SciPy >= 1.18, so nothing of it is called here.

Features are streamed into fp64 moments. The rows themselves are kept while there are fewer of them than
dimensions, where the distance has a better formula, or when another metric asks for them.

D dimensions of a feature, 2048 of Inception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gtool.metrics.features.inception import SIZE, Inception
from gtool.metrics.features.packed import Dtype, pack
from gtool.metrics.features.resize import to_input
from gtool.metrics.images import in_batches
from gtool.metrics.moments import Gaussian, Moments, fit, frechet, frechet_of_rows, require_two

ROWS_AT_ONCE = 2048  # rows per update of the moments: a product of this height runs at full speed
AT_ONCE = 8  # images that a processor's cache holds the first layers of: 8 % faster than 32, and less memory
COMPARABLE = 10_000  # below this many nobody publishes FIDs


@dataclass(frozen=True)
class Features:
    """The features of one set: all rows (N, D) fp32, or their moments, or both."""

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
    """Takes rows as they come and keeps what a distance will need; parts collected apart add up to the whole.

    keep_rows: keep every row (8 kB an image), as KID and neighbourhoods need them.
    size: numbers in a row.
    """

    def __init__(self, *, keep_rows: bool = False, size: int = SIZE) -> None:
        self.keep_rows = keep_rows
        self.size = size
        self.count = 0
        self._rows: list[Tensor] = []  # (n, size) each, and the images' positions in the whole set, (n,)
        self._positions: list[Tensor] = []
        self._flushed = 0  # of these lists, how many the moments have seen already
        self._moments = Moments(size)

    def add(self, rows: Tensor, positions: Tensor | None = None) -> None:
        """Take (n, size) rows.

        positions: of the images in the whole set (n,), when this is a part of it; in order when left out.
        """
        positions = torch.arange(self.count, self.count + len(rows)) if positions is None else positions
        self._rows.append(rows.detach().cpu())
        self._positions.append(positions.cpu())
        self.count += len(rows)
        if sum(map(len, self._rows[self._flushed :])) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if waiting := self._rows[self._flushed :]:
            self._moments.add(torch.cat(waiting))
        if not self.keep_rows:
            self._rows, self._positions = [], []
        self._flushed = len(self._rows)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything taken so far, for `absorb` of another collector."""
        if self._moments.count:
            self._flush()
        found = {"count": torch.tensor(self.count)}
        if self._moments.count:
            found |= {"mean": self._moments.mean, "scatter": self._moments.scatter}
        if self._rows:
            found |= {"rows": torch.cat(self._rows), "positions": torch.cat(self._positions)}
        return found

    def absorb(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what another collector of the same settings has taken."""
        count = int(tensors["count"])
        if "scatter" not in tensors:
            if count:
                self.add(tensors["rows"], tensors["positions"])
            return
        other = Moments(self.size)
        other.count, other.mean, other.scatter = count, tensors["mean"], tensors["scatter"]
        self._flush()
        self._moments.merge(other)
        if self.keep_rows:
            self._rows.append(tensors["rows"])
            self._positions.append(tensors["positions"])
            self._flushed = len(self._rows)
        self.count += count

    def features(self) -> Features:
        """Return everything taken so far; DataError below two images or for rows that are not finite."""
        require_two(self.count)
        if not self._moments.count:
            return Features(self.count, self._sorted(), None)
        self._flush()
        return Features(self.count, self._sorted() if self.keep_rows else None, self._moments)

    def _sorted(self) -> Tensor:
        """Return all rows in the order of the whole set: subsets are drawn by position."""
        rows, order = torch.cat(self._rows), torch.cat(self._positions)
        # The pieces would be a second copy for as long as this lives.
        self._rows, self._positions, self._flushed = [rows], [order], min(self._flushed, 1)
        return rows if bool((order.diff() > 0).all()) else rows[order.argsort()]


def fid(fake: Features, real: Features) -> float:
    """Return the FID of two sets, or that of another network's features."""
    if fake.rows is not None and real.rows is not None and max(fake.count, real.count) < real.rows.shape[1]:
        return frechet_of_rows(fake.rows, real.rows)
    return frechet(real.gaussian, fake.gaussian)


class Extractor:
    """From uint8 images of any size to Inception features, by one protocol.

    The network's layers are exchanged for faster ones. dtype: of the layers; `bf16` for previews only.
    """

    size = SIZE

    def __init__(self, network: Inception, mode: str = "clean", dtype: Dtype = "fp32") -> None:
        self.device = next(network.parameters()).device
        self.network = pack(network, dtype)
        self.mode = mode
        self.dtype = dtype

    def __call__(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Return (N, 2048) fp32 features on the CPU.

        images: uint8 (N, 3, H, W), or N images (3, H, W) of any sizes.
        """
        inputs = torch.cat([to_input(batch.to(self.device), self.mode) for batch in in_batches(images)])
        together = AT_ONCE if self.device.type == "cpu" else len(inputs)
        parts: list[Tensor] = [self.network(part).cpu() for part in torch.split(inputs, together)]
        return torch.cat(parts)
