"""Linear resampling along one axis as matrices, so that a change of images is rows @ image @ columns^T.

Matrices are differentiable any number of times by construction, which grid sampling is not, and each image of
a batch may have its own. Beyond its border an image goes on mirrored about its last pixel.

`bands` is the filter bank and `rescaling` the geometric pipeline of StyleGAN2-ADA (Karras et al. 2020,
appendix B). The wavelets are Daubechies' least asymmetric ones with 2 and 6 vanishing moments (Ten Lectures
on Wavelets, 1992).

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
# fmt: off
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)
# fmt: on
SYM6_CENTRE = sum(tap * value for tap, value in enumerate(SYM6)) / sum(SYM6)
NUM_BANDS = 4


def apply(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return rows @ image @ columns^T for images (N, 3, R, R) and matrices (N, R, R), in their dtype."""
    rows, columns = rows.to(images.dtype).unsqueeze(1), columns.to(images.dtype).unsqueeze(1)
    return rows @ images @ columns.mT


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


def rescaling(scale: Tensor, shift: Tensor, resolution: int) -> Tensor:
    """Return (N, R, R) that enlarge by `scale` (N,) about the middle, then shift by `shift` (N,) pixels.

    The axis is upsampled twofold with the sym6 wavelet, read with linear interpolation, and filtered down
    with the same wavelet, whose even shifts are orthonormal: scale 1 with shift 0 is the identity.
    """
    up, down = _sym6_pair(resolution, scale.device)
    reach = len(SYM6) // 2 - 1
    fine = torch.arange(-reach, 2 * resolution + reach, device=scale.device)  # positions that `down` reads
    # Pixel i lies at the fine position 2 i - 5 + the centre of mass of the filter, which is not its middle.
    middle = resolution - 1 - reach + SYM6_CENTRE
    sources = (fine - middle - 2 * shift.unsqueeze(1)) / scale.unsqueeze(1) + middle  # (N, 2R + 10)
    first = sources.floor()
    blend = (sources - first).unsqueeze(2)
    below, above = (up[position.long().remainder(len(up))] for position in (first, first + 1))
    return down @ torch.lerp(below, above, blend)  # (R, 2R + 10) @ (N, 2R + 10, R)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _sym6_pair(resolution: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Upsampling (4 (R - 1), R), one period of the mirrored fine axis, and downsampling (R, 2R + 10)."""
    taps = torch.tensor(SYM6)
    fine = torch.arange(max(2, 4 * (resolution - 1)))
    up = torch.zeros(len(fine), resolution)
    down = torch.zeros(resolution, 2 * resolution + len(SYM6) - 2)
    for tap in range(len(SYM6)):
        # Tap t carries pixel i to the fine position 2 i + t - 5.
        offset = fine + 5 - tap
        hit = offset % 2 == 0
        up[fine[hit], mirrored(offset[hit] // 2, resolution)] += math.sqrt(2) * taps[tap]
        down[torch.arange(resolution), 2 * torch.arange(resolution) + tap] = taps[tap] / math.sqrt(2)
    return up.to(device), down.to(device)
