"""FID-infinity: the FID that endless images would have, from a line through FIDs of fewer and fewer.

Chong & Forsyth 2020 (Effectively Unbiased FID and Inception Score): FID's bias is first order in 1/N, so the line
through FIDs of 15 sizes from 5,000 to all images, against 1/N, meets zero at the unbiased value. Sizes and subsets as
in the authors' score_infinity.py, whose shuffles have no seed; ours have.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gtool.errors import DataError
from gtool.metrics.moments import Gaussian, Moments, frechet
from gtool.runtime.random import derive_seed

NUM_SIZES = 15
SMALLEST = 5000
NEEDED = 2 * SMALLEST  # a line through sizes that are nearly one says nothing


def require_enough(count: int) -> None:
    """Raise DataError below twice the smallest size."""
    if count < NEEDED:
        raise DataError(
            f"--fid-infinity draws its line through FIDs of {SMALLEST:,} images to all: "
            f"it needs {NEEDED:,} generated images or more, got {count:,}"
        )


def fid_infinity(fake: Tensor, real: Gaussian, *, seed: int = 0) -> float:
    """Return the intercept at 1/N = 0; it may lie below 0, being an estimate.

    fake: rows (N, D).

    Raises:
        DataError: fewer than 10,000 rows.
    """
    require_enough(len(fake))
    random = np.random.RandomState(derive_seed("fid-infinity", seed) % 2**32)
    sizes = np.linspace(SMALLEST, len(fake), NUM_SIZES).astype(int)
    values = []
    for size in sizes:
        chosen = torch.from_numpy(np.sort(random.permutation(len(fake))[:size]))
        moments = Moments(fake.shape[1])
        for start in range(0, size, SMALLEST):
            moments.add(fake[chosen[start : start + SMALLEST]])
        values.append(frechet(real, moments.gaussian()))
    slope, intercept = np.polyfit(1 / sizes, values, 1)
    del slope
    return float(intercept)
