"""FID extrapolated to an infinite number of images: the intercept of a line through FIDs of 15 numbers of images.

Chong & Forsyth 2020 (Effectively Unbiased FID and Inception Score): the bias of FID is of first order in 1/N, so the
line through FIDs of 5,000 images to all, against 1/N, meets zero at the unbiased value. Sizes and subsets as in the
authors' score_infinity.py, whose shuffles have no seed; ours have.
"""

import numpy as np
import torch

from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import Moments, frechet, influence
from gtool.metrics.intervals import Values, with_interval
from gtool.metrics.registry import METRICS
from gtool.runtime.random import derive_seed

NUM_SIZES = 15
SMALLEST = 5000


def fid_infinity(fake: Features, real: Features, seed: int = 0) -> Values:
    """Return `fid_infinity` and its interval; it may lie below 0, being an estimate.

    seed: of the subsets of the fake rows. DataError below 10,000, where the sizes are nearly one.
    """
    METRICS["fid_infinity"].require_images(fake.count)
    rows = fake.all_rows
    random = np.random.RandomState(derive_seed("fid-infinity", seed) % 2**32)
    sizes = np.linspace(SMALLEST, fake.count, NUM_SIZES).astype(int)
    # The intercept is a sum of the values by these weights.
    weights = np.linalg.pinv(np.stack([1 / sizes, np.ones(NUM_SIZES)], 1))[1]
    values, share = [], torch.zeros(fake.count, dtype=torch.float64)
    for size, weight in zip(sizes, weights, strict=True):
        chosen = torch.from_numpy(np.sort(random.permutation(fake.count)[:size]))
        values.append(frechet(real.gaussian, Moments.of(rows, chosen, at_once=SMALLEST).gaussian()))
        share[chosen] += weight * fake.count / size
    moved = influence(real.gaussian, fake.gaussian, rows)
    return with_interval("fid_infinity", float(weights @ values), share * (moved - moved.mean()))
