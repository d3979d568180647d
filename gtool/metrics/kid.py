"""KID: the squared maximum mean discrepancy of Inception features under a cubic kernel.

Binkowski et al. 2018 (Demystifying MMD GANs), section 4: k(x, y) = (x . y / D + 1)^3, unbiased, averaged over 100
random subsets of at most 1000 images. Unlike FID it has no bias in the number of images.

The subsets are those that clean-fid draws when NumPy's global generator has been seeded with the same number, and its
scores these up to rounding. Rows become fp64 subset by subset: all of them at once are 16 kB an image. Subsets of a
few thousand images overlap so much that each entry of the whole kernel matrix is computed once instead: 1.2 s for
2,000 against 2,000 images, where a hundred products of subsets take 18 s.

n fake, m real images, D = 2048 numbers in a row, K subsets of s images.
"""

import numpy as np
import torch
from torch import Tensor

from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import require_finite, require_two
from gtool.metrics.intervals import Values, with_interval

NUM_SUBSETS = 100
SUBSET_SIZE = 1000
BLOCK = 2048  # rows of the kernel matrix in memory at once


def kid(fake: Features, real: Features, seed: int = 0) -> Values:
    """Return `kid`, the mean over subsets, with its interval, and `kid.deviation` between them.

    The deviation is None when every subset is everything.
    seed: of the subsets. DataError below two rows or for rows that are not finite.
    """
    x, y = fake.all_rows, real.all_rows
    for rows in (x, y):
        require_two(len(rows))
        require_finite(rows)
    size = min(len(x), len(y), SUBSET_SIZE)
    num_subsets = 1 if len(x) == len(y) == size else NUM_SUBSETS
    random = np.random.RandomState(seed % 2**32)
    # Of the reals, then of the fakes: clean-fid's order.
    picks = [[random.choice(len(rows), size, replace=False) for rows in (y, x)] for _ in range(num_subsets)]
    if len(x) ** 2 + len(y) ** 2 + len(x) * len(y) < num_subsets * size**2:
        values = _estimates(x, y, picks)
    else:
        whole = [[np.arange(size)] * 2]
        values = np.concatenate([_estimates(x[of_fake], y[of_real], whole) for of_real, of_fake in picks])
    deviation = None if num_subsets == 1 else float(np.std(values))
    noise = (deviation or 0.0) ** 2 / num_subsets
    found = with_interval("kid", float(np.mean(values)), _influence(x, y), noise)
    return found | {"kid.deviation": deviation}


def _influence(fake: Tensor, real: Tensor) -> Tensor:
    """Return twice the mean kernel of each fake row with the others, less that with the real ones: (n,)."""
    found = []
    for start in range(0, len(fake), BLOCK):
        rows = fake[start : start + BLOCK]
        near = [(rows @ other.T).div_(rows.shape[1]).add_(1).pow_(3) for other in (fake, real)]
        near[0].diagonal(start).zero_()
        among = near[0].sum(1, dtype=torch.float64) / (len(fake) - 1)
        found.append(2 * (among - near[1].sum(1, dtype=torch.float64) / len(real)))
    return torch.cat(found)


def _estimates(fake: Tensor, real: Tensor, picks: list[list[np.ndarray]]) -> np.ndarray:
    """Return the estimates (K,): with M the (n, K) membership of images in subsets, sums of M_i k_ij M_j."""
    size = len(picks[0][0])
    members = []
    for rows, chosen in ((real, [pick[0] for pick in picks]), (fake, [pick[1] for pick in picks])):
        member = torch.zeros(len(rows), len(picks), dtype=torch.float64)
        for subset, places in enumerate(chosen):
            member[torch.from_numpy(places), subset] = 1
        members.append(member)
    of_real, of_fake = members
    within = sum(
        _sums(rows, rows, member, member, diagonal=False)
        for rows, member in ((fake, of_fake), (real, of_real))
    )
    return (within / (size * (size - 1)) - 2 * _sums(fake, real, of_fake, of_real) / size**2).numpy()


def _sums(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor, *, diagonal: bool = True) -> Tensor:
    """Return for each subset (K,) the sum of the kernel over its pairs of rows, those of equal places only if asked."""
    total = torch.zeros(in_x.shape[1], dtype=torch.float64)
    other = y.double()
    for start in range(0, len(x), BLOCK):
        kernel = (x[start : start + BLOCK].double() @ other.T).div_(x.shape[1]).add_(1).pow_(3)
        if not diagonal:
            kernel.diagonal(start).zero_()
        total += (in_x[start : start + BLOCK] * (kernel @ in_y)).sum(0)
    return total
