"""The two places where pixels change their range: uint8 0..255 outside networks, float [-1, 1] inside; an example."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor


def to_pm1(images: Tensor) -> Tensor:
    """Return uint8 images of any shape as float32 in [-1, 1]; 0 becomes -1 and 255 becomes 1."""
    if images.dtype != torch.uint8:
        raise TypeError(f"uint8 images expected, got {images.dtype}")
    return images.to(torch.float32).mul_(2 / 255).sub_(1)


def to_uint8(images_pm1: Tensor) -> Tensor:
    """Return float images in [-1, 1] as uint8, rounded to the nearest level; values outside are clamped."""
    return images_pm1.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def ramp(like: Tensor, *shape: int) -> Tensor:
    """Return one example (1, *shape) that rises from -1 to 1, as the kind of number and on the device of `like`."""
    return torch.linspace(-1, 1, prod(shape), dtype=like.dtype, device=like.device).view(1, *shape)
