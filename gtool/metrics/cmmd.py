"""CMMD: the squared maximum mean discrepancy of CLIP features under a Gaussian kernel.

Jayasumana et al. 2024 (Rethinking FID): features of CLIP ViT-L/14 at 336 px, brought to unit length; k(x, y) =
exp(-|x - y|^2 / (2 * 10^2)); times 1000. The paper calls the estimate unbiased. The authors' code, and all numbers made
with it, have the biased one, with the pairs of an image and itself, and so has this: above 0 by the order of 1/N.

N generated, M real images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import require_finite, require_two
from gtool.metrics.intervals import Values, with_interval

SIGMA = 10.0
SCALE = 1000.0
BLOCK = 2048  # rows of the kernel matrix in memory at once


def cmmd(fake: Features, real: Features, seed: int = 0) -> Values:
    """Return `cmmd` and its interval; no seed has a part. DataError below two rows or for rows that are not finite."""
    x, y = (_units(features.all_rows) for features in (fake, real))
    near_fake, near_real = _means(x, x), _means(x, y)
    value = float(near_fake.mean() - 2 * near_real.mean() + _means(y, y).mean())
    return with_interval("cmmd", SCALE * value, 2 * SCALE * (near_fake - near_real))


def _units(rows: Tensor) -> Tensor:
    require_two(len(rows))
    require_finite(rows)
    return F.normalize(rows.double(), dim=1)


def _means(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean kernel of each of the unit rows (N, D) with all rows (M, D): (N,)."""
    return torch.cat([((part @ y.T - 1) / SIGMA**2).exp_().mean(1) for part in torch.split(x, BLOCK)])
