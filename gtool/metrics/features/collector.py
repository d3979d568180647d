"""Features of a set of images, and what collects them batch by batch.

N images, D numbers of a feature.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from gtool.metrics.frechet import Gaussian, Moments, require_two

ROWS_AT_ONCE = 2048  # rows per update of the moments: a product of this height runs at full speed


class Features:
    """The features of one set: all rows (N, ...) fp32 in the order of the set, or the moments of (N, D) rows, or both.

    count: images; statistics of others may not say of how many they are, which is 0.
    """

    def __init__(self, count: int, rows: Tensor | None, moments: Moments | None) -> None:
        self.count = count
        self.rows = rows
        self._moments = moments

    @classmethod
    def of(cls, rows: Tensor) -> Features:
        """Return rows (N, ...) as features."""
        return cls(len(rows), rows, None)

    @property
    def all_rows(self) -> Tensor:
        """The rows, which whoever asked for `keep_rows` has."""
        assert self.rows is not None
        return self.rows

    @cached_property
    def moments(self) -> Moments:
        """Mean and scatter matrix, fp64; DataError for a row that is not finite."""
        return self._moments or Moments.of(self.all_rows)

    @cached_property
    def gaussian(self) -> Gaussian:
        """Mean and covariance; DataError below two images."""
        return self.moments.gaussian()


class FeatureCollector:
    """Takes rows as they come and keeps what a metric will need; parts collected apart add up to the whole.

    keep_rows: keep every row (8 kB an image for Inception's). Otherwise rows are kept while they are few, where the
        Frechet distance has a better formula, and are then summed up in fp64 moments.
    """

    def __init__(self, *, keep_rows: bool = False) -> None:
        self.keep_rows = keep_rows
        self.count = 0
        self._rows: list[Tensor] = []  # (n, ...) each, and the images' positions in the whole set, (n,)
        self._positions: list[Tensor] = []
        self._moments: Moments | None = None

    def add(self, rows: Tensor, positions: Tensor | None = None) -> None:
        """Take (n, ...) rows.

        positions: of the images in the whole set (n,), when this is a part of it; in order when left out.
        """
        self._rows.append(rows.detach().cpu())
        self._positions.append(
            torch.arange(self.count, self.count + len(rows)) if positions is None else positions.cpu()
        )
        self.count += len(rows)
        if not self.keep_rows and sum(map(len, self._rows)) >= ROWS_AT_ONCE:
            self._sum_up()

    def _sum_up(self) -> None:
        if self._rows:
            moments = Moments.of(torch.cat(self._rows))
            self._moments = self._moments.join(moments) if self._moments else moments
            self._rows, self._positions = [], []

    def absorb(self, other: FeatureCollector) -> None:
        """Take what another collector of the same settings has taken."""
        for rows, positions in zip(other._rows, other._positions, strict=True):
            self.add(rows, positions)
        if other._moments is not None:
            self._moments = self._moments.join(other._moments) if self._moments else other._moments
            self.count += other._moments.count

    def features(self) -> Features:
        """Return everything taken so far; DataError below two images or for rows that are not finite."""
        require_two(self.count)
        if self._moments is not None:
            self._sum_up()
            return Features(self.count, None, self._moments)
        rows, positions = torch.cat(self._rows), torch.cat(self._positions)
        self._rows, self._positions = [rows], [positions]  # the pieces would be a second copy
        in_order = bool((positions.diff() > 0).all())
        return Features.of(rows if in_order else rows[positions.argsort()])
