"""Resampling of images, and of one axis as a matrix.

CUDA's kernel for antialiased shrinking keeps the weights of a block in shared memory, which ends at factors of about
17; those for gradients of resampling add in no fixed order. Products with two small matrices have neither limit.

Letters: N images, C channels, H W pixels before, h w after.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.runtime.precision import full_fp32


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept must be usable in later backward passes
def axis_weights(before: int, after: int, mode: str, antialias: bool, device: torch.device) -> Tensor:
    """Return the matrix (after, before) by which F.interpolate resamples an axis."""
    eye = torch.eye(before, device="cpu")[None, None]
    size = (after, before)  # the other axis stays as it is
    return F.interpolate(eye, size, mode=mode, antialias=antialias, align_corners=False)[0, 0].to(device)


def resample(
    images: Tensor, size: tuple[int, int], mode: str = "bilinear", antialias: bool = False
) -> Tensor:
    """Resample images (N, C, H, W) to (N, C, h, w), "bilinear" or "bicubic", corners not aligned."""
    if images.device.type != "cuda":
        return F.interpolate(images, size, mode=mode, antialias=antialias, align_corners=False)
    rows, columns = (
        axis_weights(before, after, mode, antialias, images.device)
        for before, after in zip(images.shape[2:], size, strict=True)
    )
    with full_fp32():
        return (rows @ images.float() @ columns.T).to(images.dtype)
