"""FID extrapolated to an infinite number of images: the intercept of a line through FIDs of 15 numbers of images.

Chong & Forsyth 2020 (Effectively Unbiased FID and Inception Score): the bias of FID is of first order in 1/N, so the
line through FIDs of 5,000 images to all, against 1/N, meets zero at the unbiased value. Sizes and subsets as in the
authors' score_infinity.py, whose shuffles have no seed; ours have.
"""

from __future__ import annotations

import numpy as np
import torch

from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import Moments, frechet
from gtool.metrics.registry import METRICS
from gtool.runtime.random import derive_seed

NUM_SIZES = 15
SMALLEST = 5000


def fid_infinity(fake: Features, real: Features, seed: int = 0) -> dict[str, float]:
    """Return `fid_infinity`; it may lie below 0, being an estimate.

    seed: of the subsets of the fake rows. DataError below 10,000, where the sizes are nearly one.
    """
    METRICS["fid_infinity"].require_images(fake.count)
    rows = fake.all_rows
    random = np.random.RandomState(derive_seed("fid-infinity", seed) % 2**32)
    sizes = np.linspace(SMALLEST, fake.count, NUM_SIZES).astype(int)
    values = []
    for size in sizes:
        chosen = torch.from_numpy(np.sort(random.permutation(fake.count)[:size]))
        values.append(frechet(real.gaussian, Moments.of(rows, chosen, at_once=SMALLEST).gaussian()))
    _, intercept = np.polyfit(1 / sizes, values, 1)
    return {"fid_infinity": float(intercept)}
