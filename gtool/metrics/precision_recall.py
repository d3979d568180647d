"""Precision and recall, density and coverage: k-NN manifolds of the two sets of features.

Precision and recall: Kynkaanniemi et al. 2019 (Improved Precision and Recall Metric), k = 3, as torch-fidelity 0.4
computes them: precision is the share of generated images that lie within the ball of any real image, whose radius is
the distance to its k-th nearest neighbour; recall is the same with the sets exchanged. The paper takes features of
VGG-16; these are Inception's, as the protocol string says.
Density and coverage: Naeem et al. 2020 (Reliable Fidelity and Diversity Metrics), k = 5, as prdc 0.2 computes them: how
many real balls a generated image lies in, over k; and the share of real balls with one in them. For equal distributions
density is 1 and coverage 1 - 2^-k = 0.969 in expectation.

Distances are fp64, one block of rows against everything at a time: a matrix of all pairs never exists. Nor do fp64
copies of both sets: 16 kB an image.
N generated, M real images, D numbers of a feature.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import require_finite
from gtool.metrics.intervals import PLUS_FOUR, Values, random_halves, with_interval, with_share_interval
from gtool.metrics.registry import METRICS

PR_NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
SPARE = 20  # neighbours that are known beyond the k-th, for when half of the images are left out
BLOCK_ENTRIES = 1 << 24  # distances in memory at once: 128 MiB
LENGTHS_AT_ONCE = 2048  # rows whose squares are in memory at once: 32 MiB


def precision_recall(fake: Features, real: Features, seed: int = 0) -> Values:
    """Return `precision` and `recall` of rows (N, D) and (M, D) with their intervals.

    DataError for few images, or features not finite.
    """
    x, y, centre = _checked("pr", fake, real)
    around_real = _radii(y, centre, PR_NEIGHBOURS)
    around_fake = _radii_of_halves(x, centre, PR_NEIGHBOURS)  # (1 + 2 S, N): of all images first
    is_precise = torch.zeros(len(x), dtype=torch.bool)
    recalled = np.zeros(len(around_fake))
    for rows, apart in _blocks(y, x, centre):  # (b, N) squared distances
        is_precise |= (apart <= around_real[rows, None]).any(0)
        recalled += [float((apart <= radii).any(1).sum()) for radii in around_fake]
    recall, halves = recalled[0] / len(y), recalled[1:].reshape(-1, 2) / len(y)
    precise = is_precise.double()
    found = with_interval("precision", float(precise.mean()), torch.cat([precise, torch.tensor(PLUS_FOUR)]))
    return found | with_share_interval("recall", float(recall), halves, len(y))


def density_coverage(fake: Features, real: Features, seed: int = 0) -> Values:
    """Return `density` and `coverage` of rows (N, D) and (M, D) with their intervals.

    DataError for few images, or features not finite.
    """
    x, y, centre = _checked("density", fake, real)
    radii = _radii(y, centre, DENSITY_NEIGHBOURS)
    split = torch.from_numpy(random_halves(len(x)))
    member = torch.stack([split == 0, split == 1], 1).flatten(0, 1).T.float()  # (N, 2 S)
    inside = torch.zeros(len(x), dtype=torch.float64)
    covered, halves = 0, torch.zeros(member.shape[1])
    for rows, apart in _blocks(y, x, centre):
        within = apart < radii[rows, None]  # (b, N)
        inside += within.sum(0)
        covered += int(within.any(1).sum())
        halves += (within.float() @ member > 0).sum(0)
    inside /= DENSITY_NEIGHBOURS
    found = with_interval("density", float(inside.mean()), inside)
    return found | with_share_interval(
        "coverage", covered / len(y), halves.view(-1, 2).numpy() / len(y), len(y)
    )


def _checked(metric: str, fake: Features, real: Features) -> tuple[Tensor, Tensor, Tensor]:
    """Return both sets of rows, and the mean of the real ones: lengths of centred rows lose less to rounding."""
    for rows in (fake.all_rows, real.all_rows):
        METRICS[metric].require_images(len(rows))
        require_finite(rows)
    return fake.all_rows, real.all_rows, real.all_rows.double().mean(0)


def _radii(rows: Tensor, centre: Tensor, k: int) -> Tensor:
    """Return the squared distance (N,) of each row to its k-th nearest other row."""
    blocks = _blocks(rows, rows, centre, exclude_self=True)
    return torch.cat([apart.topk(k, largest=False).values[:, -1] for _, apart in blocks])


def _radii_of_halves(rows: Tensor, centre: Tensor, k: int) -> Tensor:
    """Return the squared distances (1 + 2 S, N): of `_radii`, then among the images of each half of each split.

    Images of the other half have a negative one: nothing is within it.
    """
    found = [
        apart.topk(min(k + SPARE, len(rows) - 1), largest=False)
        for _, apart in _blocks(rows, rows, centre, exclude_self=True)
    ]
    near, which = (torch.cat(parts) for parts in zip(*found, strict=True))  # (N, k + SPARE)
    radii = [near[:, k - 1]]
    for split in torch.from_numpy(random_halves(len(rows))):
        is_own = split[which] == split[:, None]
        # The k-th of its own half; of neighbours that are nearly all of the other, the last.
        place = (is_own.cumsum(1) < k).sum(1).clamp_max(near.shape[1] - 1)
        radius = near.gather(1, place[:, None])[:, 0]
        radii += [radius.masked_fill(split == other, -1) for other in (1, 0)]
    return torch.stack(radii)


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
