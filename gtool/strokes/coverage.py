"""Where strokes lie: which overlap a mask, what is under their ink, and how much of it is visible.

Geometry is in pixels, as in `gtool.strokes.renderer`. Axis letters: N strokes, H W pixels, h w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gtool.strokes.brush import Brush
from gtool.strokes.renderer import layers, touch

# Places of a mark that are sampled, across and along it; the ink of a brush ends at about 0.45.
SAMPLES = (-0.4, -0.2, 0.0, 0.2, 0.4)

LEAST_VISIBLE = 0.1  # share of a pixel's colour below which a stroke does not count as visible in it


def cells_of(geometry: Tensor, height: int, width: int, cell: float) -> Tensor:
    """Return the cells of `cell` pixels that the boxes of N strokes (N, 5) meet: (height, width) bool."""
    left, top, right, bottom = _boxes(geometry, height, width, cell)
    steps = torch.zeros(height + 1, width + 1, device=geometry.device)
    one = torch.ones_like(geometry[:, 0])
    for row, column, sign in ((top, left, 1), (bottom, right, 1), (top, right, -1), (bottom, left, -1)):
        steps.index_put_((row, column), sign * one, accumulate=True)
    return steps.cumsum(0).cumsum(1)[:-1, :-1] > 0.5


def overlaps(geometry: Tensor, mask: Tensor, cell: float) -> Tensor:
    """Say which of N strokes (N, 5) have a box that meets a mask (h, w) of cells of `cell` pixels: (N,) bool."""
    height, width = mask.shape
    left, top, right, bottom = _boxes(geometry, height, width, cell)
    sums = torch.zeros(height + 1, width + 1, device=mask.device)
    sums[1:, 1:] = mask.float().cumsum(0).cumsum(1)
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside > 0.5


def _boxes(geometry: Tensor, height: int, width: int, cell: float) -> list[Tensor]:
    """Left, top, right and bottom cells, the latter two not inside: (N,) int64 each."""
    # Half a diagonal, and what filtering adds.
    reach = 0.505 * geometry[:, 2:4].norm(dim=-1, keepdim=True) + 2
    low, high = (geometry[:, :2] - reach) / cell, (geometry[:, :2] + reach) / cell
    ends = torch.tensor([width, height], device=geometry.device)
    low, high = low.floor().long().clamp(min=0), high.ceil().long().clamp(min=0)
    low, high = torch.minimum(low, ends), torch.minimum(high, ends)
    return [low[:, 0], low[:, 1], high[:, 0], high[:, 1]]


def sample_under(geometry: Tensor, image: Tensor) -> Tensor:
    """Sample an image (C, H, W), its edges repeated, in 25 places under the ink of N strokes (N, 5): (C, N, 25)."""
    _, height, width = image.shape
    sample = geometry.new_tensor(SAMPLES)
    u, v = (axis.reshape(1, -1) for axis in torch.meshgrid(sample, sample, indexing="ij"))  # (1, 25)
    x, y, across, along, theta = (part[:, None] for part in geometry.unbind(-1))
    cosine, sine = (torch.pi * theta).cos(), (torch.pi * theta).sin()
    column = (x + u * across * cosine - v * along * sine).floor().long().clamp(0, width - 1)  # (N, 25)
    row = (y + u * across * sine + v * along * cosine).floor().long().clamp(0, height - 1)
    return image.flatten(1)[:, row * width + column]


def visible_ink(
    brush: Brush, geometry: Tensor, opacity: float, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Find out how much of N strokes (N, 5), on a canvas of a height and width, later ones leave visible.

    Returns:
        share: (N,) of the ink of each, in [0, 1]; 0 where there is none.
        place: (P,) int64, pixels of the flat canvas,
        stroke: (P,) int64, the strokes that are visible in them.
    """
    height, width = size
    light = torch.ones(height * width, device=geometry.device)  # what passes through all strokes above
    seen, ink = torch.zeros(2, len(geometry), device=geometry.device)
    places, strokes = [torch.empty(0, dtype=torch.long, device=geometry.device)], [ink[:0].long()]
    downwards = geometry.flip(0)
    for layer in layers(downwards, height, width):
        touched = touch(brush, downwards[layer], height, width)
        mask = touched.mask * opacity
        stroke = len(geometry) - 1 - layer[touched.stroke]
        weight = mask * light[touched.place]
        light[touched.place] -= weight
        seen.index_add_(0, stroke, weight)
        ink.index_add_(0, stroke, mask)
        clear = weight > LEAST_VISIBLE
        places.append(touched.place[clear])
        strokes.append(stroke[clear])
    return seen / ink.clamp(min=1e-6), torch.cat(places), torch.cat(strokes)
