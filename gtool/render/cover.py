"""Where strokes lie: which of them come near a mask, and what share of their ink is on it.

Geometry is in pixels, as in `gtool.render.stroke`. Axis letters: N strokes, H W pixels, h w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Places of the ink that are looked at, across and along a mark; the ink of a brush ends at about 0.45.
PROBES = (-0.4, -0.2, 0.0, 0.2, 0.4)


def mark(geometry: Tensor, height: int, width: int, cell: float) -> Tensor:
    """Return the cells of `cell` pixels that the boxes of N strokes (N, 5) meet: (height, width) bool."""
    left, top, right, bottom = _boxes(geometry, height, width, cell)
    steps = torch.zeros(height + 1, width + 1, device=geometry.device)
    one = torch.ones_like(geometry[:, 0])
    for row, column, sign in ((top, left, 1), (bottom, right, 1), (top, right, -1), (bottom, left, -1)):
        steps.index_put_((row, column), sign * one, accumulate=True)
    return steps.cumsum(0).cumsum(1)[:-1, :-1] > 0.5


def meets(geometry: Tensor, mask: Tensor, cell: float) -> Tensor:
    """Say which of N strokes (N, 5) have a box that meets a mask (h, w) of cells of `cell` pixels: (N,) bool."""
    height, width = mask.shape
    left, top, right, bottom = _boxes(geometry, height, width, cell)
    sums = torch.zeros(height + 1, width + 1, device=mask.device)
    sums[1:, 1:] = mask.float().cumsum(0).cumsum(1)
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside > 0.5


def _boxes(geometry: Tensor, height: int, width: int, cell: float) -> list[Tensor]:
    """Left, top, right and bottom cells, the latter two not inside: (N,) int64 each."""
    reach = (
        0.505 * geometry[:, 2:4].norm(dim=-1, keepdim=True) + 2
    )  # half a diagonal, and what filtering adds
    low, high = (geometry[:, :2] - reach) / cell, (geometry[:, :2] + reach) / cell
    ends = torch.tensor([width, height], device=geometry.device)
    low, high = low.floor().long().clamp(min=0), high.ceil().long().clamp(min=0)
    low, high = torch.minimum(low, ends), torch.minimum(high, ends)
    return [low[:, 0], low[:, 1], high[:, 0], high[:, 1]]


def mean_under(geometry: Tensor, image: Tensor) -> Tensor:
    """Return the mean of an image (C, H, W) under the ink of N strokes (N, 5), looked at in 25 places: (N, C).

    Places beyond the image do not count; a stroke wholly beyond it gets 0.
    """
    values, inside = look_under(geometry, image)
    return ((values * inside).sum(-1) / inside.sum(-1).clamp(min=1)).T


def look_under(geometry: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Look at an image (C, H, W) in 25 places under the ink of each of N strokes (N, 5).

    Returns:
        values: (C, N, 25).
        inside: (N, 25) bool, which places lie within the image; the values of others mean nothing.
    """
    _, height, width = image.shape
    probe = geometry.new_tensor(PROBES)
    u, v = (axis.reshape(1, -1) for axis in torch.meshgrid(probe, probe, indexing="ij"))  # (1, 25)
    x, y, across, along, theta = (part[:, None] for part in geometry.unbind(-1))
    cosine, sine = (torch.pi * theta).cos(), (torch.pi * theta).sin()
    column = (x + u * across * cosine - v * along * sine).floor().long()  # (N, 25)
    row = (y + u * across * sine + v * along * cosine).floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    return image.flatten(1)[:, place], inside
