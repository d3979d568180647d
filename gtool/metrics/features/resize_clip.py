"""To 224 x 224 the way CLIP does it: Pillow's bicubic on bytes, the shorter side to 224, then the centre.

clean-fid 0.1.35 (clip_features.py) calls torchvision's Resize and CenterCrop on uint8 pictures, which is Pillow's
resizing in integers: weights are rounded to 22 bits, each row is resized before the columns are, and both times the
result is rounded to a grey level. On a CPU nothing is faster than Pillow itself. On an accelerator the same sums are
products with constant matrices in fp64, where they are exact, so pixels are equal bit for bit on every device.

N images, H W pixels, S = 224.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gtool.metrics.features.resize import bicubic_weights, in_bands

SIDE = 224
PRECISION_BITS = 22  # of Pillow's weights (Resample.c)
PIXELS_AT_ONCE = 1 << 20  # 24 MiB of fp64, three channels

Bands = list[tuple[Tensor, int, int]]


def to_square(images: Tensor, side: int = SIDE) -> Tensor:
    """Return uint8 (N, 3, H, W) as whole grey levels 0..255, (N, 3, side, side) fp32 on the same device."""
    height, width = images.shape[2:]
    shorter = min(height, width)
    resized = int(side * height / shorter), int(side * width / shorter)  # torchvision rounds down
    if images.device.type == "cpu":
        return torch.stack([_by_pillow(image, resized, side) for image in images])
    return by_matrices(images, resized, side)


def _by_pillow(image: Tensor, resized: tuple[int, int], side: int) -> Tensor:
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    pixels = np.asarray(picture.resize(resized[::-1], Image.Resampling.BICUBIC))
    top, left = (_margin(size, side) for size in resized)
    pixels = pixels[top : top + side, left : left + side].transpose(2, 0, 1)
    return torch.from_numpy(pixels.astype(np.float32))


def by_matrices(images: Tensor, resized: tuple[int, int], side: int) -> Tensor:
    """Return the same by matrix products, on any device that has fp64."""
    rows, columns = (_bands(*sizes, side) for sizes in zip(images.shape[2:], resized, strict=True))
    count = max(1, PIXELS_AT_ONCE // max(images.shape[2] * images.shape[3], side * side))
    return torch.cat([_resize(part, rows, columns) for part in torch.split(images, count)])


def _resize(images: Tensor, rows: Bands, columns: Bands) -> Tensor:
    pixels = images.to(torch.float64)
    parts = [pixels[..., first:last] @ weights.to(pixels).T for weights, first, last in columns]
    pixels = _to_levels(torch.cat(parts, 3))  # (n, 3, H, S)
    parts = [weights.to(pixels) @ pixels[:, :, first:last] for weights, first, last in rows]
    return _to_levels(torch.cat(parts, 2)).float()


def _to_levels(pixels: Tensor) -> Tensor:
    return pixels.add_(0.5).floor_().clamp_(0, 255)


@lru_cache(maxsize=64)
def _bands(size: int, resized: int, side: int) -> Bands:
    """Return the matrix that brings one axis from `size` to `resized` pixels and keeps the `side` in the middle."""
    weights = bicubic_weights(size, resized)
    weights = weights / weights.sum(1, keepdims=True)
    scale = 1 << PRECISION_BITS
    weights = np.trunc(weights * scale + np.copysign(0.5, weights)) / scale  # away from zero at a half
    start = _margin(resized, side)
    return in_bands(torch.from_numpy(weights[start : start + side]))


def _margin(resized: int, side: int) -> int:
    """Return what torchvision cuts off before the middle."""
    return round((resized - side) / 2)
