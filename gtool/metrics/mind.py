"""MIND: the sliced squared Wasserstein distance of Inception features.

Berthet et al. 2026 (MIND: Monge Inception Distance for Generative Models Evaluation, arXiv:2605.06797): along each of
1,000 random directions, the mean squared difference of the sorted projections; the mean of these, times 3 D. Few images
do what FID takes many for. Directions, and the images chosen where one set is larger, are those that torch-fidelity
(after 0.4.0, metric_mind.py) draws by its seed 2020, so its numbers with 1,000 projections are these.

D numbers of a feature.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import require_finite, require_two
from gtool.metrics.intervals import Values, with_interval

NUM_DIRECTIONS = 1000
AT_ONCE = 50  # directions
SEED = 2020


def mind(fake: Features, real: Features, seed: int = 0) -> Values:
    """Return `mind` and its interval, of as many images as the smaller set has; the draws are always the same.

    DataError below two rows or for rows that are not finite.
    """
    x, y = fake.all_rows, real.all_rows
    random = torch.Generator().manual_seed(SEED)
    count = min(len(x), len(y))
    require_two(count)
    x, y = (_chosen(rows, count, random) for rows in (x, y))
    size = x.shape[1]
    directions = torch.randn(NUM_DIRECTIONS, size, generator=random)
    directions /= directions.norm(dim=1, keepdim=True)
    value, influence = 0.0, torch.zeros(count, dtype=torch.float64)
    for part in torch.split(directions, AT_ONCE):
        (first, order), second = (x @ part.T).T.sort(), (y @ part.T).T.sort().values
        apart = (first - second).double()
        value += float(apart.square().sum())
        influence.index_add_(0, order.flatten(), potential(first.double(), 2 * apart).flatten())
    scale = 3 * size / NUM_DIRECTIONS
    return with_interval("mind", scale * value / count, scale * influence)


def potential(places: Tensor, slope: Tensor) -> Tensor:
    """Return (K, N) what moving mass between sorted places (K, N) costs: the integral of its slope at each of them."""
    steps = places.diff() * (slope[:, 1:] + slope[:, :-1]) / 2
    return F.pad(steps.cumsum(1), (1, 0))


def _chosen(rows: Tensor, count: int, random: torch.Generator) -> Tensor:
    require_finite(rows)
    return rows if len(rows) == count else rows[torch.randperm(len(rows), generator=random)[:count]]
