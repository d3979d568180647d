"""RFD (`rfd-v1`): Frechet distance on the features of a fixed random network; needs no weights file.

It is not FID and must never be called so: it sees static, blur, collapse, wrong layout and wrong colours, not
whether a cat looks like a cat. Read it against its floor, the same distance between two disjoint sets of real
images. The metric follows the idea of Naeem et al. 2020 (section 5: randomly initialised embeddings).

The recipe is frozen; any change of a number below is a new version under a new name.
1. uint8 pixels to [-1, 1]; images larger than 32 px are averaged down to 32 x 32 (finer detail is for SWD).
2. Three stages: 3 x 3 convolution without bias (64, 128, 256 channels, orthogonal matrices made from our own
   counter-based normals), standardised per channel on the reference, leaky ReLU 0.2, 2 x 2 mean between stages.
3. 704 features: the 64 + 128 + 256 spatial means of the stages, and 256 samples of the last map averaged to
   4 x 4: channel c is read at cell c mod 16, so every channel and every place of the picture takes part.
4. The Frechet distance in fp64.

Standardisation depends on the reference only, so candidates scored against one reference are comparable. N images, C channels, H W pixels, D = 704.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.device import derive_seed, hashed_normal
from gtool.errors import DataError
from gtool.metrics.moments import fit, frechet

PROTOCOL = "rfd-v1"
WIDTHS = (64, 128, 256)
SIDE = 32  # pixels per side that the network sees at most
SMALLEST = 16
GRID = 4  # cells per side of the sampled last map
SIZE = sum(WIDTHS) + WIDTHS[-1]  # 704
SLOPE = 0.2
NUM_CALIBRATION = 256  # reference images that set the standardisation
CHUNK = 128  # images in flight: 33 MB for the widest map


class Images(Protocol):
    """Anything that slices to uint8 images (N, 3, H, W): a tensor, an array, a memory map, a lazy view."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> object: ...


def as_tensor(images: object, device: torch.device | str = "cpu") -> Tensor:
    """Return uint8 (N, 3, H, W) on `device`; DataError for any other type or shape."""
    tensor = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    if tensor.dtype != torch.uint8 or tensor.ndim != 4 or tensor.shape[1] != 3:
        raise DataError(f"metrics need uint8 images (N, 3, H, W); got {tensor.dtype} {tuple(tensor.shape)}")
    if min(tensor.shape[2:]) < SMALLEST:
        raise DataError(
            f"metrics need at least {SMALLEST} px a side; got {tensor.shape[3]} x {tensor.shape[2]}"
        )
    return tensor.to(device)


class RandomFeatures:
    """The frozen random network, standardised on a reference set.

    reference: its first 256 images set the standardisation of each stage, one after the other.
    """

    def __init__(self, reference: Images, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.filters: list[tuple[Tensor, Tensor]] = []
        maps = _pixels(as_tensor(reference[:NUM_CALIBRATION], self.device))
        channels = 3
        for stage, width in enumerate(WIDTHS):
            weight = _orthogonal(width, channels * 9, stage).view(width, channels, 3, 3).to(self.device)
            weight, bias = _standardise(weight, _convolve(maps, weight, None))
            self.filters.append((weight.contiguous(memory_format=torch.channels_last), bias))
            maps = F.avg_pool2d(F.leaky_relu(_convolve(maps, weight, bias), SLOPE), 2)
            channels = width

    @torch.no_grad()
    def __call__(self, images: Images) -> Tensor:
        """Return (N, 704) fp32 features on the CPU for images of any side >= 16."""
        starts = range(0, len(images), CHUNK)
        return torch.cat(
            [self._chunk(as_tensor(images[start : start + CHUNK], self.device)) for start in starts]
        )

    def _chunk(self, images: Tensor) -> Tensor:
        maps = _pixels(images)
        features = []
        for stage, (weight, bias) in enumerate(self.filters):
            maps = F.avg_pool2d(maps, 2) if stage else maps
            maps = F.leaky_relu_(_convolve(maps, weight, bias), SLOPE)
            features.append(maps.mean((2, 3)))
        cells = F.adaptive_avg_pool2d(maps, GRID).flatten(2)  # (N, 256, 16)
        channel = torch.arange(WIDTHS[-1], device=maps.device)
        return torch.cat([*features, cells[:, channel, channel % GRID**2]], dim=1).cpu()


class RandomFrechet:
    """RFD against one reference set."""

    def __init__(self, reference: Images, *, device: torch.device | str = "cpu") -> None:
        self.features = RandomFeatures(reference, device=device)
        self.gaussian = fit(self.features(reference))

    def distance_of_features(self, features: Tensor) -> float:
        """Return the distance of (N, 704) features computed before."""
        return frechet(self.gaussian, fit(features))

    def distance(self, images: Images) -> float:
        """Return the distance of images (N, 3, H, W) uint8; DataError below two images."""
        return self.distance_of_features(self.features(images))


def _pixels(images: Tensor) -> Tensor:
    pixels = images.to(torch.float32).div_(127.5).sub_(1)
    if max(pixels.shape[2:]) > SIDE:
        pixels = F.adaptive_avg_pool2d(pixels, SIDE)
    return pixels.contiguous(memory_format=torch.channels_last)


def _convolve(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # TF32 would make the same images score differently on a GPU.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return F.conv2d(maps, weight, bias, padding=1)


def _orthogonal(rows: int, columns: int, stage: int) -> Tensor:
    """Return an fp32 matrix with orthonormal rows or columns, whichever are fewer."""
    indices = torch.arange(rows, dtype=torch.int64)
    normal = hashed_normal(derive_seed(PROTOCOL), indices, columns, stream=stage).double()
    tall = normal if rows >= columns else normal.T
    basis, triangle = torch.linalg.qr(tall)
    basis = basis * triangle.diagonal().sign()  # makes the decomposition unique
    return (basis if rows >= columns else basis.T).float().contiguous()


def _standardise(weight: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    """Fold the response's mean and deviation per channel into the filter: return weight and bias."""
    rows = response.transpose(0, 1).flatten(1).double()  # (C, N H W)
    scale = rows.std(1).clamp_min(1e-3).reciprocal()
    return (weight * scale.view(-1, 1, 1, 1)).float(), (-rows.mean(1) * scale).float()
