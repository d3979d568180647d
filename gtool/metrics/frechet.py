"""Means and covariances of feature rows, in fp64, and the Frechet distance between two of them.

The distance is |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)) (Heusel et al. 2017, Eq. 6). The trace
term is the sum of the square roots of the eigenvalues of R S2 R with R = S1^(1/2), both from symmetric
solvers: never complex, and far cheaper than a matrix square root of the product. It has to be fp64: in fp32
the same formula is off by a third.

With fewer rows than dimensions on both sides the D x D route spends its time on null eigenvalues and adds
their rounding noise; the trace term then is the nuclear norm of A B^T / sqrt((n1 - 1)(n2 - 1)), A and B
centred rows.

N rows, D dimensions of a feature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gtool.errors import DataError
from gtool.runtime.device import use_threads

# A distance this little below zero is rounding of a zero, not a wrong answer; and an eigenvalue, as a share.
NEGATIVE_IS_ROUNDING = 1e-3
NULL = 1e-10  # an eigenvalue that is none, as a share of the largest


@dataclass(frozen=True)
class Gaussian:
    """The mean (D,) and the unbiased covariance (D, D) of `count` rows, fp64 on the CPU."""

    count: int
    mean: Tensor
    covariance: Tensor

    @cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance, (D, D); DataError where it is none."""
        with use_threads(1):
            values, vectors = torch.linalg.eigh(self.covariance)
        # Statistics of strangers may hold anything symmetric.
        if values[0] < -NEGATIVE_IS_ROUNDING * max(1.0, float(values[-1])):
            raise DataError("the covariance of the reference has negative eigenvalues, so it is none")
        return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


@dataclass
class Moments:
    """The mean (D,) and scatter matrix (D, D) of `count` rows, fp64; parts join into the whole (Chan et al. 1979)."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, rows: Tensor, chosen: Tensor | None = None, at_once: int = 2048) -> Moments:
        """Return the moments of (N, D) rows of any float type, or of those at the positions `chosen` (n,).

        at_once: rows that are copied to fp64 at a time. DataError when one is not finite.
        """
        size = rows.shape[1]
        zeros = torch.zeros(size, dtype=torch.float64)
        moments = cls(0, zeros, zeros.expand(size, size).clone())
        for start in range(0, len(rows) if chosen is None else len(chosen), at_once):
            places = slice(start, start + at_once)
            part = rows[places if chosen is None else chosen[places]]
            require_finite(part)
            part = part.detach().to("cpu", torch.float64)
            mean = part.mean(0)
            part = part - mean
            moments.join(cls(len(part), mean, part.T @ part))
        return moments

    def join(self, other: Moments) -> Moments:
        """Take the rows that another has seen; returns itself."""
        total = self.count + other.count
        step = other.mean - self.mean
        self.scatter += other.scatter + torch.outer(step, step) * (self.count * other.count / total)
        self.mean = self.mean + step * (other.count / total)
        self.count = total
        return self

    def gaussian(self) -> Gaussian:
        """Return mean and covariance; DataError below two rows, where there is no covariance."""
        require_two(self.count)
        return Gaussian(self.count, self.mean, self.scatter / (self.count - 1))


def frechet(first: Gaussian, second: Gaussian) -> float:
    """Return the Frechet distance of two Gaussians; the root of `first` is kept for the next call."""
    inner = first.root @ second.covariance @ first.root
    with use_threads(1):
        trace_term = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    traces = first.covariance.trace() + second.covariance.trace()
    return _settle(first.mean - second.mean, traces, trace_term)


def frechet_of_rows(first: Tensor, second: Tensor) -> float:
    """Return the Frechet distance of the Gaussians of (N1, D) and (N2, D) rows, N1, N2 < D: cheaper, and exact."""
    (mean_1, rows_1), (mean_2, rows_2) = _centred(first), _centred(second)
    with use_threads(1):
        trace_term = torch.linalg.svdvals(rows_1 @ rows_2.T).sum()
    return _settle(mean_1 - mean_2, rows_1.square().sum() + rows_2.square().sum(), trace_term)


def influence(first: Gaussian, second: Gaussian, rows: Tensor) -> Tensor:
    """Return by how much each of the rows (N, D) of `second` moves the Frechet distance, but for a constant: (N,).

    The derivative of the distance by the weight of a row x around the mean is 2 x . shift + |x|^2 - x T x, where T =
    R (R S2 R)^(-1/2) R carries one Gaussian onto the other.
    """
    root = first.root
    inner = root @ second.covariance @ root
    with use_threads(1):
        values, vectors = torch.linalg.eigh((inner + inner.T) / 2)
    is_seen = values > NULL * values[-1]
    half = (root @ vectors[:, is_seen]) * values[is_seen] ** -0.25  # T = half half^T
    shift = second.mean - first.mean
    parts = []
    for part in torch.split(rows, 2048):
        part = part.detach().to("cpu", torch.float64) - second.mean
        parts.append(2 * part @ shift + part.square().sum(1) - (part @ half).square().sum(1))
    return torch.cat(parts)


def influence_of_rows(first: Tensor, second: Tensor) -> Tensor:
    """Return the same of the rows of `second` (N2, D) where both have fewer than D: (N2,)."""
    (mean_1, rows_1), (mean_2, rows_2) = _centred(first), _centred(second)
    product = rows_2 @ rows_1.T
    with use_threads(1):  # T between the rows is the square root of their product with itself
        values, vectors = torch.linalg.eigh(product @ product.T)
    carried = (vectors.square() * values.clamp_min(0).sqrt()).sum(1)
    rows = len(rows_2) - 1
    return 2 * rows**0.5 * rows_2 @ (mean_2 - mean_1) + rows * (rows_2.square().sum(1) - carried)


def _centred(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the rows around it, scaled so that their product is the covariance."""
    require_two(rows.shape[0])
    require_finite(rows)
    rows = rows.detach().to("cpu", torch.float64)
    mean = rows.mean(0)
    return mean, (rows - mean) / (rows.shape[0] - 1) ** 0.5


def _settle(shift: Tensor, traces: Tensor, trace_term: Tensor) -> float:
    distance = float(shift @ shift + traces - 2 * trace_term)
    if not -NEGATIVE_IS_ROUNDING * max(1.0, float(traces)) <= distance < math.inf:
        raise DataError(
            f"the Frechet distance came out as {distance:.4g}; check the images and statistics for garbage"
        )
    return max(distance, 0.0)


def require_finite(rows: Tensor) -> None:
    """Raise DataError when a feature is NaN or infinite."""
    # The least and the largest are NaN where any is: one pass, and no copy of the rows.
    if rows.numel() and not torch.isfinite(torch.stack(torch.aminmax(rows))).all():
        raise DataError("the features of some images are not finite, so no distance can be computed")


def require_two(count: int) -> None:
    """Raise DataError below two images, where there is no covariance."""
    if count < 2:
        raise DataError(f"a distance between sets needs at least 2 images on each side; got {count}")
