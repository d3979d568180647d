"""The filter bank of StyleGAN2-ADA (Karras et al. 2020, appendix B) as matrices: rows @ image @ columns^T.

Matrices are differentiable any number of times by construction, and each image of a batch may have its own. Beyond
its border an image goes on mirrored about its last pixel. The wavelet is Daubechies' least asymmetric one with two
vanishing moments (Ten Lectures on Wavelets, 1992).

Axis letters: N images, R resolution.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

SYM2 = tuple(value / (4 * math.sqrt(2)) for value in (1 - 3**0.5, 3 - 3**0.5, 3 + 3**0.5, 1 + 3**0.5))
NUM_BANDS = 4


def mirrored(positions: Tensor, resolution: int) -> Tensor:
    """Return the pixel 0..R-1 that is seen at any integer position of the endlessly mirrored axis."""
    period = max(1, 2 * (resolution - 1))
    folded = positions.remainder(period)
    return torch.minimum(folded, period - folded)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept must be usable in later backward passes
def bands(resolution: int, device: torch.device) -> Tensor:
    """Return (4, R, R) band-pass matrices from the lowest octave to the highest, which sum to the identity.

    L_k is half the autocorrelation of sym2 with its taps 2^k apart; the bands are the differences between the
    ever smoother 1, L_0, L_0 L_1, L_0 L_1 L_2.
    """
    taps = torch.tensor(SYM2, dtype=torch.float64)
    half_band = _full_convolution(taps, taps.flip(0)) / 2  # (7,)
    smooth = torch.ones(1, dtype=torch.float64)
    matrices = [_filtering(smooth, resolution)]
    for octave in range(NUM_BANDS - 1):
        spread = torch.zeros(6 * 2**octave + 1, dtype=torch.float64)
        spread[:: 2**octave] = half_band
        smooth = _full_convolution(smooth, spread)
        matrices.append(_filtering(smooth, resolution))
    finer = [first - second for first, second in pairwise(matrices)]
    return torch.stack([matrices[-1], *reversed(finer)]).float().to(device)


def _full_convolution(first: Tensor, second: Tensor) -> Tensor:
    return F.conv1d(first[None, None], second.flip(0)[None, None], padding=len(second) - 1).flatten()


def _filtering(taps: Tensor, resolution: int) -> Tensor:
    """Matrix (R, R) of a centred symmetric filter on the mirrored axis."""
    pixels = torch.arange(resolution).unsqueeze(1)
    sources = mirrored(pixels + torch.arange(len(taps)) - len(taps) // 2, resolution)  # (R, taps)
    matrix = torch.zeros(resolution, resolution, dtype=taps.dtype)
    return matrix.scatter_add_(1, sources, taps.expand(resolution, -1))
