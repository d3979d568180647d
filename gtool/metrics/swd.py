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

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.errors import DataError
from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import require_two
from gtool.metrics.images import SMALLEST, Images, in_chunks
from gtool.metrics.intervals import Values, with_interval
from gtool.runtime.precision import full_fp32
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


def swd(fake: Features, real: Features, seed: int = 0, *, interval: bool = False) -> Values:
    """Return `swd_<side>` of two sets of projected patches, finest first, with intervals where they are asked for.

    DataError below two images.
    """
    x, y = fake.all_rows, real.all_rows  # (N, L, P, 128)
    count = min(len(x), len(y), MAX_IMAGES)
    require_two(count)
    sides = [SMALLEST << level for level in reversed(range(x.shape[1]))]
    found: Values = {}
    for side, a, b in zip(sides, x[:count].unbind(1), y[:count].unbind(1), strict=True):
        name = f"swd_{side}"
        first, second = _by_direction(a), _by_direction(b)
        apart = np.sort(first, axis=1)
        apart -= np.sort(second, axis=1)
        value = SCALE * float(np.abs(apart).mean(dtype=np.float64))
        found |= with_interval(name, value, _influence(first, apart)) if interval else {name: value}
    return found


def _by_direction(level: Tensor) -> np.ndarray:
    """Return (128, N P) of the projections (N, P, 128)."""
    return np.ascontiguousarray(level.flatten(0, 1).numpy().T)


def _influence(level: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Return by how much each image moves the distance, but for a constant: (N,).

    level, apart: projections of its patches (128, N P), and how far they are from the others' when both are sorted.
    What moving mass along a direction costs has the sign of that as its slope.
    """
    total = np.zeros(level.shape[1])
    for projected, sign in zip(level, np.sign(apart), strict=True):
        order = np.argsort(projected)  # NumPy sorts floats ten times faster than torch
        steps = np.diff(projected[order]) * (sign[1:] + sign[:-1]) / 2
        total[order[1:]] += np.cumsum(steps, dtype=np.float64)
    return SCALE * total.reshape(-1, NUM_PATCHES).mean(1) / len(level)


class PatchProjections:
    """Patches of the Laplacian pyramid of uint8 images, standardised on a reference set, as 128 projections each."""

    def __init__(self, reference: Images, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.standard: list[tuple[Tensor, Tensor]] = []  # by level: mean and deviation (1, 1, 3, 1)
        for level in self._patches(reference, np.arange(len(reference))).unbind(1):
            patches = level.double()  # (N, P, 3, 49)
            deviation = patches.std((0, 1, 3), keepdim=True).clamp_min(1e-3)
            self.standard.append((patches.mean((0, 1, 3), keepdim=True).float(), deviation.float()))
        self.sides = [SMALLEST << level for level in reversed(range(len(self.standard)))]  # finest first

    def __call__(self, images: Images, positions: np.ndarray | None = None) -> Tensor:
        """Return the projected patches (N, L, 16, 128) of images (N, 3, H, W); of more than 16,384 of the first.

        positions: of the images in their set (N,), when it comes in parts; 0, 1, ... when left out. DataError for
            another resolution than the reference's.
        """
        patches = self._patches(images, np.arange(len(images)) if positions is None else positions)
        if patches.shape[1] != len(self.sides):
            sides = f"{SMALLEST << patches.shape[1] - 1} px and {self.sides[0]} px"
            raise DataError(f"images of different resolution cannot be compared: {sides}; resize one set")
        projected = [
            ((level - mean) / deviation).flatten(2) @ _directions(side)  # (N, P, 147) -> (N, P, 128)
            for side, level, (mean, deviation) in zip(
                self.sides, patches.unbind(1), self.standard, strict=True
            )
        ]
        return torch.stack(projected, 1)

    def _patches(self, images: Images, positions: np.ndarray) -> Tensor:
        """Return (N, L, 16, 3, 49) patches, on the CPU."""
        parts = []
        for start, chunk in in_chunks(images, MAX_IMAGES, CHUNK_PIXELS, total=MAX_IMAGES):
            with full_fp32():
                bands = _pyramid(chunk.to(self.device))
                cuts = [_cut(band, positions[start : start + len(chunk)]).cpu() for band in bands]
            parts.append(torch.stack(cuts, 1))
        return torch.cat(parts)


def _pyramid(images: Tensor) -> Iterator[Tensor]:
    """Yield bands (N, 3, S, S) from the finest level to the low-pass image; S is 64, 32, 16 for images of 64 px."""
    side = SMALLEST
    while side * 2 <= min(images.shape[2:]):
        side *= 2
    low = images.to(torch.float32).div_(127.5).sub_(1)
    if tuple(low.shape[2:]) != (side, side):
        low = F.adaptive_avg_pool2d(low, side)
    while low.shape[2] > SMALLEST:
        image, low = low, _filter(low, gain=1.0, stride=2)  # (N, 3, S/2, S/2)
        yield image - _up(low)
    yield low


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
