"""KID: the squared maximum mean discrepancy of Inception features under a cubic kernel.

Binkowski et al. 2018 (Demystifying MMD GANs), section 4: k(x, y) = (x . y / D + 1)^3, unbiased, averaged
over 100 random subsets of at most 1000 images. Unlike FID it has no bias in the number of images.

The subsets are those that clean-fid draws when NumPy's global generator has been seeded with the same
number, and the sums are fp64. A distance over subsets of a few thousand images is taken from blocks of the
whole kernel matrix, each computed once, instead of three products a subset. Rows become fp64 where they are
multiplied and not before: all of them at once are 16 kB an image.

n fake, m real images, D = 2048, K subsets of s images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gtool.metrics.moments import require_finite, require_two

NUM_SUBSETS = 100
SUBSET_SIZE = 1000
BLOCK = 2048  # rows of the kernel matrix in memory at once


@dataclass(frozen=True)
class Kid:
    """The mean over subsets and its standard deviation between them, None when every subset is everything."""

    value: float
    deviation: float | None


def kid(fake: Tensor, real: Tensor, *, seed: int = 0) -> Kid:
    """Return the KID of (n, 2048) and (m, 2048) feature rows; DataError below two rows or for NaN."""
    for rows in (fake, real):
        require_two(len(rows))
        require_finite(rows)
    size = min(len(fake), len(real), SUBSET_SIZE)
    picks = _draw(len(fake), len(real), size, seed)
    entries = len(fake) ** 2 + len(real) ** 2 + len(fake) * len(real)
    sums = _whole_sums if entries <= 3 * NUM_SUBSETS * size**2 else _subset_sums
    within_fake, within_real, between = sums(fake, real, picks)
    values = (within_fake + within_real) / (size * (size - 1)) - 2 * between / size**2
    deviation = None if len(picks) == 1 else float(values.std(correction=0))
    return Kid(float(values.mean()), deviation)


Picks = list[tuple[Tensor, Tensor]]
Sums = tuple[Tensor, Tensor, Tensor]


def _draw(num_fake: int, num_real: int, size: int, seed: int) -> Picks:
    """Return the subsets' indices into fake and real, in clean-fid's order; one when there is no choice."""
    if num_fake == num_real == size:
        return [(torch.arange(size), torch.arange(size))]
    random = np.random.RandomState(seed % 2**32)
    picks = []
    for _ in range(NUM_SUBSETS):
        real = torch.from_numpy(random.choice(num_real, size, replace=False))
        fake = torch.from_numpy(random.choice(num_fake, size, replace=False))
        picks.append((fake, real))
    return picks


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return (len(x), len(y)) of fp64 rows."""
    return (x @ y.T).div_(x.shape[1]).add_(1).pow_(3)


def _subset_sums(fake: Tensor, real: Tensor, picks: Picks) -> Sums:
    """Sum the kernel over each subset: fake pairs, real pairs (both without the diagonal), mixed pairs."""
    sums = torch.zeros(len(picks), 3, dtype=torch.float64)
    for row, (chosen_fake, chosen_real) in zip(sums, picks, strict=True):
        x, y = fake[chosen_fake].double(), real[chosen_real].double()
        for place, rows in enumerate((x, y)):
            kernel = _kernel(rows, rows)
            row[place] = kernel.sum() - kernel.diagonal().sum()
        row[2] = _kernel(x, y).sum()
    fakes, reals, between = sums.unbind(1)  # (K,) each
    return fakes, reals, between


def _whole_sums(fake: Tensor, real: Tensor, picks: Picks) -> Sums:
    """The same sums from the whole kernel matrices: with M the (n, K) membership, sum_ij M_i k_ij M_j."""
    in_fake, in_real = (
        _membership(len(rows), [pick[i] for pick in picks]) for i, rows in enumerate((fake, real))
    )
    return (
        _weighted(fake, fake, in_fake, in_fake) - in_fake.T @ _diagonal(fake),
        _weighted(real, real, in_real, in_real) - in_real.T @ _diagonal(real),
        _weighted(fake, real, in_fake, in_real),
    )


def _membership(count: int, picks: list[Tensor]) -> Tensor:
    members = torch.zeros(count, len(picks), dtype=torch.float64)
    for subset, indices in enumerate(picks):
        members[indices, subset] = 1
    return members


def _diagonal(rows: Tensor) -> Tensor:
    lengths = [part.double().square().sum(1) for part in torch.split(rows, BLOCK)]
    return (torch.cat(lengths) / rows.shape[1] + 1) ** 3


def _weighted(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> Tensor:
    total = torch.zeros(in_x.shape[1], dtype=torch.float64)
    y = y.double()  # a few thousand
    for start in range(0, len(x), BLOCK):
        block = slice(start, start + BLOCK)
        total += (in_x[block] * (_kernel(x[block].double(), y) @ in_y)).sum(0)
    return total
