"""Changing the resolution of a token map, and cutting images into patches.

Axis letters: N batch, L tokens of a map of side S (L = S x S), C channels, P patch side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.nn.resample import resample
from gtool.nn.second_derivatives import convolve


def to_map(x: Tensor) -> Tensor:
    """View tokens as an image: (N, L, C) -> (N, C, S, S)."""
    n, tokens, channels = x.shape
    side = round(tokens**0.5)
    return x.transpose(1, 2).reshape(n, channels, side, side)


def to_tokens(x: Tensor) -> Tensor:
    """Undo `to_map`."""
    return x.flatten(2).transpose(1, 2)  # (N, S S, C)


def pixel_shuffle(x: Tensor, factor: int = 2) -> Tensor:
    """Trade channels for resolution: (N, L, C) -> (N, L f^2, C / f^2), as nn.PixelShuffle on the map."""
    n, tokens, channels = x.shape
    side = round(tokens**0.5)
    fewer = channels // factor**2
    x = x.view(n, side, side, fewer, factor, factor).permute(0, 1, 4, 2, 5, 3)  # (N, S, f, S, f, C/f^2)
    return x.reshape(n, tokens * factor**2, fewer)


def upsample(x: Tensor, kind: str) -> Tensor:
    """Double the side of a map: "pixelshuffle" (a quarter of the channels), "bicubic" or "bilinear"."""
    if kind == "pixelshuffle":
        return pixel_shuffle(x)
    image = to_map(x)
    return to_tokens(resample(image, (2 * image.shape[2], 2 * image.shape[3]), kind))


def low_pass(x: Tensor) -> Tensor:
    """Smooth a map of tokens: bicubic x4, then the mean of every 4 x 4 (CelebA-HQ release)."""
    image = to_map(x)
    return to_tokens(F.avg_pool2d(resample(image, (4 * image.shape[2], 4 * image.shape[3]), "bicubic"), 4))


def smooth(images: Tensor, period: int) -> Tensor:
    """Average `period` pixels along both axes, twice: what repeats with that period becomes its mean
    (of periods above 2, away from the border).

    (N, C, S, S) -> (N, C, S, S); images go on mirrored beyond their border.
    """
    padded = F.pad(images, (period - 1,) * 4, "reflect")
    return F.avg_pool2d(F.avg_pool2d(padded, period, 1), period, 1)


def pool(x: Tensor, factor: int = 2) -> Tensor:
    """Average f x f neighbours: (N, L, C) -> (N, L / f^2, C)."""
    n, tokens, channels = x.shape
    smaller = round(tokens**0.5) // factor
    # Two steps: over rows, each contiguous, is several times faster than over both axes at once.
    x = x.reshape(n, smaller, factor, smaller * factor * channels).mean(dim=2)
    return x.view(n, smaller**2, factor, channels).mean(dim=2)


class PatchEmbed(nn.Module):
    """One linear map of every P x P patch; with overlap, of the 2P x 2P pixels around it.

    The released code uses strided convolutions; without overlap that is the same product on reshaped pixels,
    whose second derivative costs no convolution.
    """

    def __init__(self, channels: int, patch_size: int, overlap: bool = False) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.overlap = overlap
        width = patch_size * (2 if overlap else 1)
        self.weight = nn.Parameter(torch.empty(channels, 3, width, width))
        self.bias = nn.Parameter(torch.empty(channels))
        nn.init.xavier_uniform_(self.weight)
        bound = (3 * width**2) ** -0.5
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, R, R) -> (N, (R / P)^2, C)."""
        size = self.patch_size
        if self.overlap:
            return to_tokens(convolve(images, self.weight, self.bias, stride=size, padding=size // 2))
        n, colours, resolution, _ = images.shape
        side = resolution // size
        patches = images.view(n, colours, side, size, side, size).permute(0, 2, 4, 1, 3, 5)
        return F.linear(patches.reshape(n, side**2, -1), self.weight.flatten(1), self.bias)
