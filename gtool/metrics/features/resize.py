"""To 299 x 299 the way each FID protocol does it, as two matrix products, and to the network's input range.

Parmar et al. 2022 (On Aliased Resizing and Surprising Subtleties in GAN Evaluation) show that the resizer
alone moves FID by points, so each protocol has exactly one:

    clean              PIL's bicubic (a = -0.5, widened by the scale when it shrinks), clipped to 0..255
    legacy_tensorflow  bilinear with corners aligned at the origin, no antialiasing, as TensorFlow 1 did
    legacy_pytorch     bilinear with half-pixel centres, no antialiasing

All three are separable and linear, so one image costs two products with constant matrices. Against PIL the
difference stays below 2e-4 of a grey level. N images, H W pixels, S = 299. `resize_clip` is the same for CLIP.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gtool.metrics.precision import full_fp32

Mode = Literal["clean", "legacy_tensorflow", "legacy_pytorch"]
MODES: tuple[str, ...] = get_args(Mode)
SIDE = 299
PIXELS_AT_ONCE = 1 << 21  # 24 MiB of fp32, three channels
BANDED = 256  # pixels of a side from which zeros are worth leaving out
BAND = 32  # rows of the matrix in a block


@full_fp32()
def to_input(images: Tensor, mode: str) -> Tensor:
    """Return uint8 (N, 3, H, W) as the network's input, (N, 3, 299, 299) fp32 in about [-1, 1].

    The aspect ratio is not kept; no protocol keeps it.
    """
    height = max(1, PIXELS_AT_ONCE // (images.shape[2] * images.shape[3]))
    parts = [images[start : start + height] for start in range(0, len(images), height)]
    pixels = torch.cat([_resize(part, mode) for part in parts])  # (N, 3, S, S)
    pixels.clamp_(0, 255)  # the bilinear ones cannot leave the range
    if mode == "legacy_pytorch":
        return pixels.div_(127.5).sub_(1)
    return pixels.sub_(128).div_(128)


def _resize(images: Tensor, mode: str) -> Tensor:
    pixels = images.to(torch.float32)
    if images.shape[2] < BANDED:
        rows = resize_matrix(mode, images.shape[2]).to(images.device)  # (S, H)
        columns = resize_matrix(mode, images.shape[3]).to(images.device)  # (S, W)
        return rows @ (pixels @ columns.T)
    # Of a large image a pixel sees only a few neighbours: most of the matrix is zero, and blocks leave it out.
    bands = _bands(mode, images.shape[2])
    pixels = torch.cat([rows.to(pixels) @ pixels[:, :, first:last] for rows, first, last in bands], 2)
    bands = _bands(mode, images.shape[3])
    return torch.cat([pixels[..., first:last] @ columns.to(pixels).T for columns, first, last in bands], 3)


@lru_cache(maxsize=64)
def _bands(mode: str, size: int) -> list[tuple[Tensor, int, int]]:
    return in_bands(resize_matrix(mode, size))


def in_bands(matrix: Tensor) -> list[tuple[Tensor, int, int]]:
    """Return a matrix in blocks of rows, each without its outer columns of zeros, and which columns these are."""
    bands = []
    for start in range(0, len(matrix), BAND):
        rows = matrix[start : start + BAND]
        seen = rows.abs().sum(0).nonzero().flatten()
        first, last = int(seen[0]), int(seen[-1]) + 1
        bands.append((rows[:, first:last].contiguous(), first, last))
    return bands


@lru_cache(maxsize=64)
def resize_matrix(mode: str, size: int) -> Tensor:
    """Return the (299, size) fp32 matrix that resizes one axis."""
    weights = {"clean": bicubic_weights, "legacy_tensorflow": _from_origin, "legacy_pytorch": _half_pixel}[
        mode
    ](size)
    return torch.from_numpy((weights / weights.sum(1, keepdims=True)).astype(np.float32))


def bicubic_weights(size: int, side: int = SIDE) -> np.ndarray:
    """Return Pillow's weights (side, size), not normalised: the kernel at pixel centres, cut at the border."""
    scale = size / side
    stretch = max(scale, 1.0)
    centre = (np.arange(side) + 0.5)[:, None] * scale
    first = np.maximum(np.trunc(centre - 2 * stretch + 0.5), 0)
    last = np.minimum(np.trunc(centre + 2 * stretch + 0.5), size)
    pixel = np.arange(size)[None, :]
    inside = (pixel >= first) & (pixel < last)
    return np.where(inside, _keys((pixel - centre + 0.5) / stretch), 0.0)


def _keys(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel (Keys 1981) with a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _from_origin(size: int) -> np.ndarray:
    return _bilinear(np.arange(SIDE) * (size / SIDE), size)


def _half_pixel(size: int) -> np.ndarray:
    return _bilinear((np.arange(SIDE) + 0.5) * (size / SIDE) - 0.5, size)


def _bilinear(position: np.ndarray, size: int) -> np.ndarray:
    """Weights that read `size` samples at real positions, clamped to the border."""
    position = np.clip(position, 0, size - 1)
    left = np.floor(position).astype(np.int64)
    right = np.minimum(left + 1, size - 1)
    share = position - left
    weights = np.zeros((SIDE, size))
    np.add.at(weights, (np.arange(SIDE), left), 1 - share)
    np.add.at(weights, (np.arange(SIDE), right), share)
    return weights
