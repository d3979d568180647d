"""95 % intervals of scores, over the generated images; the reference is taken as it is.

A score of N images would have come out otherwise with N other images of the same generator. To first order each image
moves it by an amount of its own, its influence over N, and so the score's deviation is that of the influences over the
root of N: the infinitesimal jackknife (Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, chapter 6).
Recall and coverage have no such amount, as each image's part depends on its neighbours; they are computed of the two
halves of 20 random splits, whose differences say how they vary. Either costs about as much as the score, once, and no
image is looked at again.

What is covered is the mean of many such scorings. That is the true value of a score without bias (kid, is, paired
ones, precision), and of one with a bias that falls with the number of images, such as fid, the value of this number.
Where images are few beside the numbers of a feature the interval is too wide rather than too narrow.
"""

import numpy as np
from scipy.special import stdtrit
from torch import Tensor

from gtool.metrics.registry import SCORES
from gtool.runtime.random import derive_seed

Values = dict[str, float | None]
CONFIDENCE = 0.95
NUM_SPLITS = 20
# Added to shares, so that one of none or all has an interval too (Agresti and Coull 1998).
PLUS_FOUR = (0, 0, 1, 1)


def with_interval(name: str, value: float, influence: Tensor | np.ndarray, noise: float = 0.0) -> Values:
    """Return a score with `.low` and `.high`, from the influence of each image (N,), but for a constant.

    noise: variance that the score has besides, from draws of its own.
    """
    moved = np.asarray(influence, np.float64)
    return _within(name, value, moved.var(ddof=1) / len(moved) + noise, len(moved) - 1)


def with_share_interval(name: str, share: float, halves: np.ndarray, num_real: int) -> Values:
    """Return a share of the real images with its interval, from the shares by halves of the generated ones (S, 2).

    The halves of a split are independent, so their differences give the variance of a half. In units of p (1 - p) it is
    1 / num_real, were each real image found or missed by itself, and what images that lie together add, which halves
    when the number of generated images doubles.
    """
    likely = (share * num_real + sum(PLUS_FOUR)) / (num_real + len(PLUS_FOUR))
    unit, unit_of_half = (p * (1 - p) for p in (likely, float(halves.mean())))
    of_half = float(np.square(halves[:, 0] - halves[:, 1]).mean()) / 2 / max(unit_of_half, 1e-12)
    return _within(name, share, unit * (1 / num_real + max(of_half - 1 / num_real, 0) / 2), len(halves))


def random_halves(count: int) -> np.ndarray:
    """Return in which half of each split an image is, 0 or 1: (S, N)."""
    random = np.random.RandomState(derive_seed("halves of images", 0) % 2**32)
    return np.stack([random.permutation(count) % 2 for _ in range(NUM_SPLITS)])


def _within(name: str, value: float, variance: float, freedom: int) -> Values:
    reach = float(stdtrit(freedom, (1 + CONFIDENCE) / 2) * variance**0.5)
    low, high = SCORES[name].low, SCORES[name].high
    return {name: value, f"{name}.low": max(value - reach, low), f"{name}.high": min(value + reach, high)}
