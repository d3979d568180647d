"""New strokes for a canvas as it is: tried where it is far from the image, along its edges, and the best are taken.

Axis letters: N strokes that are tried, n that are taken, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.strokes.brush import Brush
from gtool.strokes.renderer import touch

TRIED = 1500
SPREAD = 5  # pixels over which error and orientation are averaged
NARROWEST = 1 / 4  # of the length
ASTRAY = 0.25  # share of strokes of any turn, whatever the image has there
WAVER = 0.08  # of the other turns, in half circles
APART = 0.7  # of the sum of half their lengths, by which taken strokes are apart


@dataclass(frozen=True)
class Seeds:
    """Strokes, the best first."""

    geometry: Tensor  # (n, 5), in pixels
    colors: Tensor  # (n, 3)
    gains: Tensor  # (n,) by how much |canvas - target| falls, summed over pixels


def seed_strokes(
    brush: Brush,
    opacity: float,
    canvas: Tensor,
    target: Tensor,
    weight: Tensor,
    most: int,
    lengths: tuple[float, float],
    random: torch.Generator,
) -> Seeds:
    """Find at most `most` strokes that bring a canvas nearer to a target, (3, H, W) each.

    weight: (1, H, W), how much pixels count; lengths: the shortest and the longest in pixels; random: on the CPU.
    """
    geometry = _candidates(canvas, target, weight, lengths, random)
    colors, gains = _try(brush, opacity, geometry, canvas, target, weight)
    taken = _best_apart(geometry, gains, most)
    return Seeds(geometry[taken], colors[taken], gains[taken])


def _candidates(
    canvas: Tensor, target: Tensor, weight: Tensor, lengths: tuple[float, float], random: torch.Generator
) -> Tensor:
    """Draw strokes (N, 5): more of them where the error is large, short ones as often as long ones."""
    error = _spread((canvas - target).abs().mean(0, keepdim=True) * weight).flatten().cpu()
    cell = torch.multinomial(error + 1e-8, TRIED, replacement=True, generator=random)
    uniform = torch.rand(TRIED, 4, generator=random)
    waver, moved_x, moved_y = torch.randn(3, TRIED, generator=random)
    low, high = (math.log(length) for length in lengths)
    length = torch.exp(low + (high - low) * uniform[:, 0])
    width = length * NARROWEST ** uniform[:, 1]
    along = _across_edges(target).flatten().cpu()[cell] + WAVER * waver
    theta = torch.where(uniform[:, 2] < ASTRAY, uniform[:, 3], along)
    columns = target.shape[2]
    x = cell % columns + 0.5 + 0.15 * length * moved_x
    y = cell // columns + 0.5 + 0.15 * length * moved_y
    return torch.stack([x, y, width, length, theta], dim=1).to(canvas.device)


def _across_edges(image: Tensor) -> Tensor:
    """Direction in which (3, H, W) changes most, from its structure tensor: (H, W) in units of pi."""
    grey = F.pad(image.mean(0)[None, None], (1, 1, 1, 1), mode="replicate")
    x, y = grey[:, :, 1:-1].diff(dim=3), grey[:, :, :, 1:-1].diff(dim=2)
    x, y = (x[..., 1:] + x[..., :-1])[0], (y[:, :, 1:] + y[:, :, :-1])[0]
    xx, yy, xy = (_spread(product)[0] for product in (x * x, y * y, x * y))
    return torch.atan2(2 * xy, xx - yy) / (2 * torch.pi)


def _spread(values: Tensor) -> Tensor:
    """(1, H, W) averaged over a small square around each place."""
    return F.avg_pool2d(values, SPREAD, 1, SPREAD // 2)


def _try(
    brush: Brush, opacity: float, geometry: Tensor, canvas: Tensor, target: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the mean colour of the target under each stroke, (N, 3), and what painting it alone gains, (N,)."""
    touched = touch(brush, geometry, *target.shape[1:])
    base, wanted, counts = (
        x.flatten(1).T.contiguous().index_select(0, touched.place) for x in (canvas, target, weight)
    )
    mask = touched.mask[:, None]
    sums = torch.zeros(len(geometry), 4, device=geometry.device)
    sums.index_add_(0, touched.stroke, torch.cat([mask * wanted, mask], dim=1))
    colors = sums[:, :3] / (sums[:, 3:] + 1e-4)
    paint = touched.shaded[:, None] * colors.index_select(0, touched.stroke)
    after = (base + opacity * (paint - mask * base)).clamp(0, 1)
    gain = (((base - wanted).abs() - (after - wanted).abs()) * counts).mean(1)
    return colors, torch.zeros(len(geometry), device=geometry.device).index_add_(0, touched.stroke, gain)


def _best_apart(geometry: Tensor, gains: Tensor, most: int) -> list[int]:
    """Number the strokes of the largest gains, above 0, that do not lie over each other."""
    place, reach = geometry[:, :2].cpu(), 0.5 * APART * geometry[:, 3].cpu()
    free, taken = gains.cpu() > 0, list[int]()
    for number in gains.cpu().argsort(descending=True, stable=True).tolist():
        if len(taken) == most:
            break
        if free[number]:
            taken.append(number)
            free &= (place - place[number]).abs().amax(1) > reach + reach[number]
    return taken
