"""SWD (`swd-v1`): sliced Wasserstein distance of Laplacian-pyramid patches; needs no weights file.

After Karras et al. 2018 (Progressive Growing of GANs, section 5): local image statistics, scale by scale. It
sees noise, blur and mosaics long before RFD does, and is nearly blind to global structure.

The recipe is frozen; any change of a number below is a new version under a new name.
1. Images whose side is not 16 * 2^k are averaged down to the largest such side below; at most 16384 images
   are used.
2. Laplacian pyramid with the 5-tap binomial filter, mirrored at the border, down to 16 px; the last level is
   the low-pass image itself.
3. From each image 16 patches of 7 x 7 x 3 per level, at places that depend on (level, index of the image).
4. Patches are standardised per colour channel with the reference's mean and deviation. The paper standardises
   each set with its own, which hides every error of brightness, colour and contrast.
5. 128 random directions per level; the mean absolute difference of the sorted projections, times 1000.

Sets of different size are compared on the first images of the larger. N images, S pixels per side of a level,
P = 16 patches, D = 147 numbers a patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.errors import DataError
from gtool.metrics.frechet import require_two
from gtool.metrics.images import SMALLEST, Images, in_chunks
from gtool.metrics.precision import full_fp32
from gtool.runtime.random import derive_seed, hashed_uniform
from gtool.runtime.torch_random import hashed_normal

PROTOCOL = "swd-v1"
PATCH = 7
NUM_PATCHES = 16  # per image and level
NUM_DIRECTIONS = 128
MAX_IMAGES = 16384
SCALE = 1000.0
CHUNK_PIXELS = 128 * 32 * 32  # pixels in flight, few enough for the processor's cache
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def levels_of(height: int, width: int) -> list[int]:
    """Return the sides of the pyramid's levels, finest first: 64 px gives [64, 32, 16]."""
    levels = [SMALLEST]
    while levels[0] * 2 <= min(height, width):
        levels.insert(0, levels[0] * 2)
    return levels


@dataclass(frozen=True)
class Projections:
    """Projected patches (N, 16, 128) per level, in the order of the images."""

    levels: dict[int, Tensor]

    def __len__(self) -> int:
        return next(iter(self.levels.values())).shape[0]

    def first(self, count: int | None) -> Projections:
        """Return the projections of the first `count` images."""
        return Projections({level: rows[:count] for level, rows in self.levels.items()})

    def pick(self, order: Tensor) -> Projections:
        """Return the projections of some images, by their places (n,) here."""
        return Projections({level: rows[order] for level, rows in self.levels.items()})


def join(parts: list[Projections]) -> Projections:
    """Return the projections of a set whose parts were projected one after the other."""
    return Projections(
        {level: torch.cat([part.levels[level] for part in parts]) for level in parts[0].levels}
    )


class SlicedWasserstein:
    """SWD against one reference set; `reference` gives the standardisation and the levels."""

    def __init__(self, reference: Images, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.standard: dict[int, tuple[Tensor, Tensor]] = {}
        patches = self._patches(reference)
        for level, rows in patches.items():
            channels = rows.double()
            mean = channels.mean((0, 1, 3), keepdim=True)
            deviation = channels.std((0, 1, 3), keepdim=True).clamp_min(1e-3)
            self.standard[level] = (mean.float(), deviation.float())
        self.reference = self._project_patches(patches)
        # Per number of images; training asks for the same one at every tick.
        self._sorted: dict[int, dict[int, np.ndarray]] = {}

    def project(self, images: Images, positions: np.ndarray | None = None) -> Projections:
        """Return the projected patches of images (N, 3, H, W) uint8.

        positions: of the images in their set (N,), when it comes in parts; 0, 1, ... when left out.
        """
        return self._project_patches(self._patches(images, positions))

    def distance(self, images: Images) -> dict[int, float]:
        """Return the distance per level, finest first; DataError below two images."""
        return self.distance_of_projections(self.project(images))

    def distance_of_projections(self, other: Projections) -> dict[int, float]:
        """Return the distance per level of patches projected before."""
        count = min(len(self.reference), len(other))
        require_two(count)
        if count not in self._sorted:
            self._sorted[count] = _sort(self.reference.first(count))
        pairs = zip(self._sorted[count].items(), _sort(other.first(count)).values(), strict=True)
        return {level: SCALE * float(np.abs(a - b).mean(dtype=np.float64)) for (level, a), b in pairs}

    def _patches(self, images: Images, positions: np.ndarray | None = None) -> dict[int, Tensor]:
        """Return (N, 16, 3, 49) patches per level, on the CPU."""
        positions = np.arange(len(images)) if positions is None else positions
        parts: dict[int, list[Tensor]] = {}
        for start, chunk in in_chunks(images, MAX_IMAGES, CHUNK_PIXELS, total=MAX_IMAGES):
            with full_fp32():
                for level, band in _pyramid(chunk.to(self.device)):
                    cut = _cut(band, positions[start : start + len(chunk)])
                    parts.setdefault(level, []).append(cut.cpu())
        return {level: torch.cat(rows) for level, rows in parts.items()}

    def _project_patches(self, patches: dict[int, Tensor]) -> Projections:
        if patches.keys() != self.standard.keys():
            sides = f"{next(iter(patches))} px and {next(iter(self.standard))} px"
            raise DataError(f"images of different resolution cannot be compared: {sides}; resize one set")
        projected = {}
        for level, (mean, deviation) in self.standard.items():
            rows = ((patches[level] - mean) / deviation).flatten(2)  # (N, P, D)
            projected[level] = rows @ _directions(level)  # (N, P, 128)
        return Projections(projected)


def _sort(projections: Projections) -> dict[int, np.ndarray]:
    """Return the sorted projections (128, N P) per level; NumPy sorts floats ten times faster than torch."""
    columns = {level: rows.flatten(0, 1).numpy().T for level, rows in projections.levels.items()}
    return {level: np.sort(np.ascontiguousarray(rows), axis=1) for level, rows in columns.items()}


def _pyramid(images: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (S, band (N, 3, S, S)) from the finest level to the low-pass image."""
    levels = levels_of(*images.shape[2:])
    low = images.to(torch.float32).div_(127.5).sub_(1)
    if tuple(low.shape[2:]) != (levels[0], levels[0]):
        low = F.adaptive_avg_pool2d(low, levels[0])
    for level in levels[:-1]:
        image, low = low, _down(low)
        yield level, image - _up(low)
    yield levels[-1], low


def _filter(images: Tensor, gain: float, stride: int) -> Tensor:
    """Filter both axes, keep every `stride`-th sample; on a CPU shifted sums are far faster than conv2d."""
    filtered = F.pad(images, (2, 2, 2, 2), mode="reflect")
    for dim in (3, 2):
        summed = torch.zeros(())
        for tap, weight in enumerate(BINOMIAL):
            shifted = filtered.narrow(dim, tap, images.shape[dim])
            kept = shifted[..., ::stride] if dim == 3 else shifted[:, :, ::stride]
            summed = summed.add_(kept, alpha=weight * gain) if tap else kept * (weight * gain)
        filtered = summed
    return filtered


def _down(images: Tensor) -> Tensor:
    return _filter(images, gain=1.0, stride=2)  # (N, 3, S/2, S/2)


def _up(images: Tensor) -> Tensor:
    N, C, H, W = images.shape
    spread = images.new_zeros(N, C, 2 * H, 2 * W)
    spread[:, :, ::2, ::2] = images
    return _filter(spread, gain=2.0, stride=1)  # (N, 3, 2S, 2S); each axis has lost half of its samples


def _cut(band: Tensor, positions: np.ndarray) -> Tensor:
    """Return 16 patches (N, 16, 3, 49) of a band of the images at these positions (N,) of their set."""
    N, _, S, _ = band.shape
    span = S - PATCH + 1
    seed = derive_seed(PROTOCOL, "places")
    uniform = hashed_uniform(seed, positions, 2 * NUM_PATCHES, stream=S)
    places = torch.from_numpy((uniform * span).astype(np.int64)).to(band.device)
    rows, columns = places.view(N, NUM_PATCHES, 2).unbind(2)  # (N, P) each
    windows = band.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # (N, 3, span, span, 7, 7), a view
    image = torch.arange(N, device=band.device).view(N, 1)
    return windows[image, :, rows, columns].flatten(3)  # (N, P, 3, 49)


def _directions(level: int) -> Tensor:
    """Return 128 unit vectors as the columns of (147, 128)."""
    indices = torch.arange(NUM_DIRECTIONS, dtype=torch.int64)
    normal = hashed_normal(derive_seed(PROTOCOL, "directions"), indices, 3 * PATCH**2, stream=level)
    return F.normalize(normal, dim=1).T.contiguous()
