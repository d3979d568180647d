"""The augmentation pipeline of StyleGAN2-ADA (Karras et al. 2020, appendix B): blits, geometry, colour.

All geometry of an image is one affine map and one grid sampling, all colour one affine map of RGB; each change is
there with the same probability, for each image by itself.

blit       mirror; quarter turns; shifts by whole pixels of at most an eighth of the side.
geometric  scale 2^N(0, 0.2^2); any turn, before and after stretching; stretch 2^N(0, 0.2^2); shift by N(0, 0.125^2)
           of the side.
colour     brightness N(0, 0.2^2); contrast 2^N(0, 0.5^2); inverted luma; any turn of hue; saturation 2^N(0, 1).

Deviations: images are sampled between biorthogonal wavelets (CDF 9/7) in place of sym6. They are symmetric, so that
mirroring, quarter turns and whole pixels move pixels exactly, and the border goes on mirrored without end where the
release stops after a margin.

Axis letters: N images, R resolution, P = 2R + 7 positions of the fine grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Cohen, Daubechies, Feauveau 1992, from the middle outwards: down sums to 1, up to 2.
DOWN: tuple[float, ...] = (0.6029490182363579, 0.26686411844287255, -0.07822326652898785)
DOWN += (-0.01686411844287495, 0.02674875741080976)
UP = (1.1150870524569936, 0.5912717631142469, -0.0575435262284996, -0.0912717631142469)
REACH = len(DOWN) - 1
# Daubechies' least asymmetric wavelet with two vanishing moments (Ten Lectures on Wavelets, 1992), of the filter bank.
SYM2 = tuple(value / (4 * math.sqrt(2)) for value in (1 - 3**0.5, 3 - 3**0.5, 3 + 3**0.5, 1 + 3**0.5))
NUM_BANDS = 4


@dataclass(frozen=True)
class Chances:
    """Random numbers for N images, and the decision, each with the same probability, of what is changed."""

    num_images: int
    resolution: int
    generator: torch.Generator
    p: float = 1.0

    def uniform(self, *columns: int) -> Tensor:
        """Return (N,), or (N, columns), in [0, 1)."""
        return torch.rand(self.num_images, *columns, generator=self.generator, device=self.generator.device)

    def normal(self, *columns: int) -> Tensor:
        """Return (N,), or (N, columns), from N(0, 1)."""
        return torch.randn(self.num_images, *columns, generator=self.generator, device=self.generator.device)

    def often(self, values: Tensor, p: float | None = None) -> Tensor:
        """Return values (N,) with the probability, else 0, which is no change."""
        return values * (self.uniform() < (self.p if p is None else p))


def draw(words: Sequence[tuple[str, Chances]]) -> tuple[Tensor, tuple[int, ...]]:
    """Draw words that follow each other, `ada-blit` and the like, as one map of positions and one of colours.

    Returns:
        (N, 6 + 12): rows of [A a] (2, 3) and of [M m] (3, 4); and 0 or 1 for each of the two: whether any image has it.
    """
    device = words[0][1].generator.device
    places, colours = torch.eye(3, device=device), torch.eye(4, device=device)
    for word, chances in words:
        if word in ("ada", "ada-blit"):
            places = places @ blit(chances)
        if word in ("ada", "ada-geometric"):
            places = places @ geometric(chances)
        if word in ("ada", "ada-color"):
            colours = colour(chances) @ colours
    count, maps = words[0][1].num_images, (places, colours)
    rows = [matrix.expand(count, *matrix.shape[-2:])[:, :-1].flatten(1) for matrix in maps]
    present = [bool((matrix != torch.eye(matrix.shape[-1], device=device)).any()) for matrix in maps]
    return torch.cat(rows, dim=1), tuple(map(int, present))


def apply(images: Tensor, values: Tensor, present: tuple[int, ...]) -> Tensor:
    """Return images (N, 3, R, R) changed as drawn, in their dtype."""
    x = images.to(torch.promote_types(images.dtype, torch.float32))
    if present[0]:
        x = move(x, values[:, :6].view(-1, 2, 3))
    if present[1]:
        x = change_colours(x, values[:, 6:].view(-1, 3, 4))
    return x.to(images.dtype)


# Maps of positions (x, y) about the middle, in pixels, from where a pixel is shown to where it comes from.


def blit(chances: Chances) -> Tensor:
    """Draw (N, 3, 3): mirror, then quarter turns, then whole pixels."""
    mirror = chances.often((chances.uniform() < 0.5).float())
    quarters = chances.often(torch.floor(4 * chances.uniform())).long()
    x, y = (torch.round((2 * chances.uniform() - 1) * chances.resolution / 8) for _ in "xy")
    moved = chances.often(torch.ones_like(mirror))
    # Exact, as cosines of floats are not.
    cosine, sine = (
        torch.tensor(turns, device=quarters.device)[quarters]
        for turns in ((1.0, 0.0, -1.0, 0.0), (0.0, 1.0, 0.0, -1.0))
    )
    flip = _affine(1 - 2 * mirror, 0, 0, 0, 1, 0)
    return flip @ _affine(cosine, sine, 0, -sine, cosine, 0) @ _affine(1, 0, -x * moved, 0, 1, -y * moved)


def geometric(chances: Chances) -> Tensor:
    """Draw (N, 3, 3): scale, then turn, stretch, turn again, then shift."""
    scale = (-chances.often(0.2 * chances.normal())).exp2()
    # Twice with this probability is once or more with the probability of all.
    p_turn = 1 - math.sqrt(1 - chances.p)
    first, second = (chances.often(math.pi * (2 * chances.uniform() - 1), p_turn) for _ in range(2))
    stretch = chances.often(0.2 * chances.normal())
    x, y = (0.125 * chances.resolution * chances.normal() for _ in "xy")
    moved = chances.often(torch.ones_like(scale))
    return (
        _affine(scale, 0, 0, 0, scale, 0)
        @ _affine(first.cos(), first.sin(), 0, -first.sin(), first.cos(), 0)
        @ _affine((-stretch).exp2(), 0, 0, 0, stretch.exp2(), 0)
        @ _affine(second.cos(), second.sin(), 0, -second.sin(), second.cos(), 0)
        @ _affine(1, 0, -x * moved, 0, 1, -y * moved)
    )


def _affine(*entries: Tensor | float) -> Tensor:
    """Return (N, 3, 3) with these two rows, and the last row of an affine map; numbers are the same for all N."""
    given = next(entry for entry in entries if isinstance(entry, Tensor))
    rows = [*entries, 0.0, 0.0, 1.0]
    filled = [row if isinstance(row, Tensor) else torch.full_like(given, row) for row in rows]
    return torch.stack(filled, dim=1).view(len(given), 3, 3)


# Maps of colours (R, G, B) in [-1, 1]. The luma axis is v = (1, 1, 1) / sqrt(3).


def colour(chances: Chances) -> Tensor:
    """Draw (N, 4, 4): brightness, then contrast, inverted luma, hue, saturation."""
    brightness = chances.often(0.2 * chances.normal())
    contrast = chances.often(0.5 * chances.normal()).exp2()
    inverted = chances.often((chances.uniform() < 0.5).float())
    angle = chances.often(math.pi * (2 * chances.uniform() - 1))
    saturation = chances.often(chances.normal()).exp2()
    along = torch.full((3, 3), 1 / 3, device=angle.device)  # v v^T
    across = torch.eye(3, device=angle.device) - along
    # v x, by which Rodrigues' formula turns about v.
    turn = angle.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    each = saturation.view(-1, 1, 1)
    rows = (
        (1 - 2 * inverted).view(-1, 1, 1) * along
        + each * angle.cos().view(-1, 1, 1) * across
        + each * angle.sin().view(-1, 1, 1) * turn
    ) * contrast.view(-1, 1, 1)  # (N, 3, 3)
    offset = rows.sum(dim=2, keepdim=True) * brightness.view(-1, 1, 1)  # (N, 3, 1)
    last = angle.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(rows), 1, 4)
    return torch.cat([torch.cat([rows, offset], dim=2), last], dim=1)


# Applying.


def change_colours(images: Tensor, matrix: Tensor) -> Tensor:
    """Return M x + m of the colours of images (N, 3, H, W) for matrix = [M m] (N, 3, 4)."""
    matrix = matrix.to(images.dtype)
    return torch.baddbmm(matrix[:, :, 3:], matrix[:, :, :3], images.flatten(2)).view_as(images)


def move(images: Tensor, matrix: Tensor) -> Tensor:
    """Return images (N, 3, R, R) whose pixel at p comes from A p + a for matrix = [A a] (N, 2, 3), mirrored borders."""
    resolution = images.shape[-1]
    up, down = (bank.to(images.dtype) for bank in _banks(resolution, images.device))
    matrix = matrix.to(images.dtype)
    # Two fine positions a pixel; the last fine pixel lies at 1.
    shown = torch.arange(-REACH, 2 * resolution - 1 + REACH, device=images.device) - (resolution - 1)
    shown = shown.to(images.dtype)  # (P,)
    x = matrix[:, :, 0, None, None] * shown  # (N, 2, 1, P)
    y = matrix[:, :, 1, None, None] * shown.unsqueeze(1)  # (N, 2, P, 1)
    grid = (x + y + 2 * matrix[:, :, 2, None, None]) / (resolution - 1)  # (N, 2, P, P)
    sampled = _Sample.apply(up @ images @ up.mT, grid.permute(0, 2, 3, 1).contiguous())
    return down @ sampled @ down.mT


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept must be usable in later backward passes
def _banks(resolution: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Upsampling (2R - 1, R) of the mirrored axis, and downsampling (R, 2R - 1 + 2 REACH)."""
    up = torch.zeros(2 * resolution - 1, resolution, dtype=torch.float64)
    fine = torch.arange(2 * resolution - 1)
    for offset in range(1 - len(UP), len(UP)):
        source = fine + offset
        hit = source % 2 == 0
        up[fine[hit], mirrored(source[hit] // 2, resolution)] += UP[abs(offset)]
    down = torch.zeros(resolution, 2 * resolution - 1 + 2 * REACH, dtype=torch.float64)
    pixels = torch.arange(resolution)
    for offset in range(-REACH, REACH + 1):
        down[pixels, 2 * pixels + REACH + offset] = DOWN[abs(offset)]
    return up.float().to(device), down.float().to(device)


class _Sample(torch.autograd.Function):
    """Bilinear grid sampling of images; not every torch can differentiate its own twice, and it is linear."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        """Sample (N, C, S, S) at grid (N, P, P, 2), in which images reach from -1 to 1."""
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Bring a gradient back to the images."""
        (grid,) = ctx.saved_tensors
        return _Scatter.apply(gradients[0], grid, ctx.shape), None


class _Scatter(torch.autograd.Function):
    """The transpose of `_Sample`."""

    @staticmethod
    def forward(ctx: Any, samples: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        """Add samples (N, C, P, P) to where they come from."""
        ctx.save_for_backward(grid)
        if torch.are_deterministic_algorithms_enabled():
            return _scatter_in_order(samples, grid, shape)
        bilinear, reflection, align_corners, which = 0, 2, True, [True, False]
        images, _ = torch.ops.aten.grid_sampler_2d_backward(
            samples.contiguous(), samples.new_zeros(shape), grid, bilinear, reflection, align_corners, which
        )
        return images

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Sample a gradient, as the transpose of a transpose."""
        (grid,) = ctx.saved_tensors
        return _Sample.apply(gradients[0], grid), None, None


def _scatter_in_order(samples: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
    """As `_Scatter`, by an operation that can add in a fixed order on a GPU."""
    n, channels, side, _ = shape
    place = (grid.flatten(1, 2) + 1) * ((side - 1) / 2)  # (N, P P, 2): x, y
    place = place.abs().remainder(2 * (side - 1))
    place = torch.minimum(place, 2 * (side - 1) - place)  # mirrored at the middles of the outer pixels
    first = place.floor().clamp(max=side - 2)
    share = place - first
    images = samples.new_zeros(n, channels, side * side)
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        weight = (share if right else 1 - share)[..., 0] * (share if down else 1 - share)[..., 1]  # (N, P P)
        source = (first[..., 1] + down).long() * side + (first[..., 0] + right).long()
        added = samples.flatten(2) * weight.unsqueeze(1)
        images.scatter_add_(2, source.unsqueeze(1).expand_as(added), added)
    return images.view(shape)


# The filter bank, as matrices: rows @ image @ columns^T, so that each image of a batch may have its own.


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
