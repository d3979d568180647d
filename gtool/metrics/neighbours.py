"""Precision, recall, density and coverage: which images lie among the nearest neighbours of the other set.

Precision and recall: Kynkaanniemi et al. 2019 (Improved Precision and Recall Metric), k = 3, as torch-fidelity 0.4
computes them: a generated image counts when it lies in or on the ball of any real one, whose radius is the distance
to its k-th nearest; recall is the same with the sides exchanged. The paper takes features of VGG-16; these here are
Inception's, as the protocol says.
Density and coverage: Naeem et al. 2020 (Reliable Fidelity and Diversity Metrics), k = 5, as prdc 0.2 computes them:
how many real balls a generated image lies inside of, over k; and the share of real balls with one inside. For equal
distributions density is 1 and coverage 1 - 2^-k = 0.969 in expectation.

Distances are fp64, one block of rows against everything at a time: a matrix of all pairs never exists. Nor do fp64
copies of both sets: 16 kB an image.
N generated, M real images, D numbers of a feature.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gtool.errors import DataError
from gtool.metrics.moments import require_finite

PR_NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
BLOCK_ENTRIES = 1 << 24  # distances in memory at once: 128 MiB
LENGTHS_AT_ONCE = 2048  # rows whose squares are in memory at once: 32 MiB


def neighbourhoods(fake: Tensor, real: Tensor, *, pr: bool, density: bool) -> dict[str, float]:
    """Return precision and recall, density and coverage, as asked for, of rows (N, D) and (M, D).

    Raises:
        DataError: fewer images than neighbours, or features that are not finite.
    """
    k = DENSITY_NEIGHBOURS if density else PR_NEIGHBOURS
    if min(len(fake), len(real)) <= k:
        raise DataError(
            f"neighbourhoods of {k} need more than {k} images on each side; got {min(len(fake), len(real))}"
        )
    require_finite(fake)
    require_finite(real)
    centre = real.double().mean(0)  # lengths of centred rows lose less to rounding
    around_real = _radii(real, centre, PR_NEIGHBOURS, *([DENSITY_NEIGHBOURS] if density else []))
    around_fake = _radii(fake, centre, PR_NEIGHBOURS)[0] if pr else None
    is_real = torch.zeros(len(fake), dtype=torch.bool)  # generated images in some real ball
    recalled = covered = inside = 0
    for rows, apart in _blocks(real, fake, centre):  # (b, N) squared distances
        if around_fake is not None:
            is_real |= (apart <= around_real[0][rows, None]).any(0)
            recalled += int((apart <= around_fake).any(1).sum())
        if density:
            within = apart < around_real[-1][rows, None]
            inside += int(within.sum())
            covered += int(within.any(1).sum())
    found: dict[str, float] = {}
    if pr:
        found |= {"precision": float(is_real.double().mean()), "recall": recalled / len(real)}
    if density:
        found |= {"density": inside / (DENSITY_NEIGHBOURS * len(fake)), "coverage": covered / len(real)}
    return found


def _radii(rows: Tensor, centre: Tensor, *neighbours: int) -> list[Tensor]:
    """Return the squared distance (N,) to the k-th nearest other row, for each k."""
    nearest = [
        apart.topk(max(neighbours), largest=False).values
        for _, apart in _blocks(rows, rows, centre, exclude_self=True)
    ]
    found = torch.cat(nearest)
    return [found[:, k - 1] for k in neighbours]


def _blocks(
    x: Tensor, y: Tensor, centre: Tensor, *, exclude_self: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """Yield a slice of the rows of x and their squared distances (b, len(y)) to all rows of y."""
    y = y.to(torch.float64, copy=True).sub_(centre)
    lengths = torch.cat([part.square().sum(1) for part in torch.split(y, LENGTHS_AT_ONCE)])
    height = max(1, BLOCK_ENTRIES // len(y))
    for start in range(0, len(x), height):
        rows = slice(start, min(start + height, len(x)))
        block = x[rows].to(torch.float64, copy=True).sub_(centre)
        apart = torch.addmm(lengths, block, y.T, alpha=-2)
        apart += block.square_().sum(1, keepdim=True)
        apart.clamp_(min=0)
        if exclude_self:
            apart[:, rows].fill_diagonal_(torch.inf)
        yield rows, apart
