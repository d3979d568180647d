"""Strokes to pixels: one rule, dense and differentiable for training, sparse and fast for painting.

A stroke is a brush mark (x, y, width, height, theta) of one colour. With s, c the sine and cosine of pi theta, a
pixel at (X, Y) lies at

    u = 1/2 + ( c (X - x) + s (Y - y)) / width
    v = 1/2 + (-s (X - x) + c (Y - y)) / height

of the brush (Paint Transformer, Liu et al. 2021; Huage001/PaintTransformer, inference/inference.py, has the same
equations in coordinates of [-1, 1]). The brush gives mask a and mask times shade b there, and the canvas
becomes C (1 - o a) + o b RGB under opacity o.

Bristles run along the longer side: a stroke wider than high is painted as the same stroke turned by a quarter, its
sides changed over (the reference has a second picture of the brush for it).

Deviations, with their reasons: the brush is filtered for the size it is painted at, where the reference erodes and
dilates; marks thinner than a pixel become fainter instead of breaking up; training and painting share all of it.

Coordinates here are pixels, x to the right, y down, pixel centres at halves; theta in units of pi.
Axis letters: N strokes, H W pixels, P pixels under strokes in a list, R rows of strokes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.strokes.brush import MASTER, SMALLEST, Brush

THINNEST = 1.5  # pixels: what is thinner is drawn so wide, and fainter
MARGIN = 1.0  # pixels around the ink that filtering reaches at least


@dataclass(frozen=True)
class _Marks:
    """What the pixels of N strokes share: (N,) each."""

    x: Tensor
    y: Tensor
    cosine: Tensor
    sine: Tensor
    width: Tensor
    height: Tensor
    fade: Tensor  # opacity of marks thinner than they can be drawn


def stand_up(geometry: Tensor) -> Tensor:
    """Write strokes (..., 5) so that none is wider than high, without changing where they lie."""
    x, y, width, height, theta = geometry.unbind(-1)
    theta = torch.where(width > height, theta - 0.5, theta)
    return torch.stack([x, y, torch.minimum(width, height), torch.maximum(width, height), theta], dim=-1)


def _marks(geometry: Tensor) -> _Marks:
    x, y, width, height, theta = stand_up(geometry).unbind(-1)
    wide, high = width.clamp(min=THINNEST), height.clamp(min=THINNEST)
    fade = (width.clamp(min=0) / wide) * (height.clamp(min=0) / high)
    angle = torch.pi * theta
    return _Marks(x, y, angle.cos(), angle.sin(), wide, high, fade)


def _texels(brush: Brush, marks: _Marks) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where in the atlas each stroke's brush picture lies, left and top, and its width and height: (N,) each."""
    last = len(brush.sizes) - 1
    across, along = (
        (side.detach() / SMALLEST).log2().round().long().clamp(0, last)
        for side in (marks.width, marks.height)
    )
    return brush.corners[across], brush.corners[along], brush.sizes[across], brush.sizes[along]


def render(brush: Brush, geometry: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Draw each of N strokes (N, 5), in pixels, on a window of its own of height x width pixels.

    Returns:
        mask and mask times shade, (N, height, width) each; differentiable in the geometry.
    """
    marks = _marks(geometry.float())
    left, top, size_x, size_y = (x[:, None, None] for x in _texels(brush, marks))  # (N, 1, 1)
    wide, high, cosine, sine = (
        x[:, None, None] for x in (marks.width, marks.height, marks.cosine, marks.sine)
    )
    dx = torch.arange(width, device=geometry.device) + 0.5 - marks.x[:, None, None]  # (N, 1, W)
    dy = torch.arange(height, device=geometry.device)[:, None] + 0.5 - marks.y[:, None, None]  # (N, H, 1)
    across, along = size_x / wide, size_y / high
    tx = _within((across * cosine) * dx + (across * sine) * dy, left, size_x)
    ty = _within((along * cosine) * dy - (along * sine) * dx, top, size_y)
    mask, shaded = _lookup(brush, tx, ty) * marks.fade[:, None, None]  # (N, H, W) each
    return mask, shaded


def _within(offset: Tensor, corner: Tensor, size: Tensor) -> Tensor:
    """Texels from the centre of a brush picture -> texels of the atlas, held on the zeros around the picture."""
    reach = 0.5 * size + 0.5
    return torch.minimum(torch.maximum(offset, -reach), reach) + (corner + 0.5 * size)


def _lookup(brush: Brush, tx: Tensor, ty: Tensor) -> Tensor:
    """Mask and mask times shade at places of the atlas: (...) -> (2, ...)."""
    side = brush.atlas.shape[-1]
    grid = torch.stack([tx, ty], dim=-1) * (2 / side) - 1
    flat = grid.view(1, -1, grid.shape[-2], 2) if grid.ndim > 2 else grid.view(1, 1, -1, 2)
    values = F.grid_sample(brush.atlas, flat, mode="bilinear", padding_mode="zeros", align_corners=False)
    return values.view(values.shape[1], *tx.shape)


def render_on_patches(brush: Brush, strokes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Draw strokes (N, S, 5), in units of their patches, on patches of size x size pixels.

    Returns:
        mask and mask times shade, (N, S, P) each with P = size^2; differentiable in the strokes.
    """
    scale = strokes.new_tensor([size, size, size, size, 1.0])
    mask, shaded = render(brush, (strokes * scale).view(-1, 5), size, size)
    shape = (*strokes.shape[:2], -1)
    return mask.view(shape), shaded.view(shape)


# Sparse: only the pixels under the ink.


@dataclass(frozen=True)
class Touched:
    """The pixels that N strokes touch, in a list."""

    place: Tensor  # (P,) int64, in the flat canvas
    stroke: Tensor  # (P,) int64, whose it is
    mask: Tensor  # (P,)
    shaded: Tensor  # (P,)


def touch(brush: Brush, geometry: Tensor, height: int, width: int) -> Touched:
    """List the pixels of an (height, width) canvas under N strokes (N, 5), in pixels, with what the brush gives."""
    marks = _marks(geometry)
    a, b = _half_sides(marks)
    reach_y = a * marks.sine.abs() + b * marks.cosine.abs()
    first = (marks.y - reach_y).floor().clamp(0, height).long()
    count = ((marks.y + reach_y).ceil().clamp(0, height).long() - first).clamp(min=0)
    owner = torch.repeat_interleave(count)  # (R,)
    row = _counting(count) + first[owner]  # (R,)
    dy = row + 0.5 - marks.y[owner]
    left, right = _row_span(marks, a, b, owner, dy)
    start = (left + marks.x[owner]).floor().clamp(0, width).long()
    length = ((right + marks.x[owner]).ceil().clamp(0, width).long() - start).clamp(min=0)
    left, top, size_x, size_y = _texels(brush, marks)
    across, along = size_x / marks.width, size_y / marks.height
    step_x, step_y = across * marks.cosine, -along * marks.sine  # texels a pixel to the right
    dx = start + 0.5 - marks.x[owner]
    tx = step_x[owner] * dx + (across * marks.sine)[owner] * dy
    ty = step_y[owner] * dx + (along * marks.cosine)[owner] * dy
    line = torch.repeat_interleave(length)  # (P,)
    column = _counting(length)
    stroke = owner[line]
    tx = torch.addcmul(tx[line], column, step_x[stroke])
    ty = torch.addcmul(ty[line], column, step_y[stroke])
    tx, ty = _within(tx, left[stroke], size_x[stroke]), _within(ty, top[stroke], size_y[stroke])
    mask, shaded = _lookup(brush, tx, ty) * marks.fade[stroke]
    return Touched((row * width + start)[line] + column, stroke, mask, shaded)


def _half_sides(marks: _Marks) -> tuple[Tensor, Tensor]:
    """Half width and height of the rectangle outside which a mark is nothing: (N,) each.

    Filtering reaches half a texel, which is more than MARGIN in marks much larger than the largest picture.
    """
    a, b = 0.5 * marks.width, 0.5 * marks.height
    return a + (a / MASTER).clamp(min=MARGIN), b + (b / MASTER).clamp(min=MARGIN)


def _counting(counts: Tensor) -> Tensor:
    """0, 1, .. counts[0] - 1, 0, 1, .. for every count in turn."""
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    return torch.arange(total, device=counts.device) - torch.repeat_interleave(ends - counts, counts)


def _row_span(marks: _Marks, a: Tensor, b: Tensor, owner: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Where a row at height dy enters and leaves the turned rectangle of half axes a, b: (R,) each, from x."""
    c, s, a, b = marks.cosine[owner], marks.sine[owner], a[owner], b[owner]
    # |c dx + s dy| <= a and |-s dx + c dy| <= b; a division by almost nothing leaves the other bound.
    tiny = 1e-6
    c_safe = torch.where(c.abs() < tiny, tiny, c)
    s_safe = torch.where(s.abs() < tiny, tiny, s)
    one, two = (-a - s * dy) / c_safe, (a - s * dy) / c_safe
    three, four = (c * dy - b) / s_safe, (c * dy + b) / s_safe
    left = torch.maximum(torch.minimum(one, two), torch.minimum(three, four))
    right = torch.minimum(torch.maximum(one, two), torch.maximum(three, four))
    return left, right


def layers(geometry: Tensor, height: int, width: int) -> list[Tensor]:
    """Sort N strokes (N, 5), in pixels, into layers of strokes that touch no common pixel.

    Painting layer after layer gives what painting stroke after stroke gives: a stroke comes after all those before
    it that it may overlap. Indices of the strokes (n,) in rising order, one tensor a layer.
    """
    marks = _marks(geometry)
    a, b = _half_sides(marks)
    c, s = marks.cosine.abs(), marks.sine.abs()
    reach = torch.stack([a * c + b * s, a * s + b * c], dim=-1)  # (N, 2)
    centre = torch.stack([marks.x, marks.y], dim=-1)
    cell = max(2.0, float(reach.median()) / 3) if len(reach) else 2.0
    # Pixels are whole: a stroke holds all of those it grazes.
    low = ((centre - reach).floor() / cell).floor().long().clamp(min=0)
    high = (((centre + reach).ceil() / cell).floor().long() + 1).clamp(min=0)
    cells = torch.tensor([int(width / cell) + 1, int(height / cell) + 1], device=high.device)
    boxes = torch.cat([low, torch.minimum(high, cells)], dim=-1).cpu().numpy()
    deepest = np.zeros((int(cells[1]), int(cells[0])), np.int32)
    depth = np.zeros(len(boxes), np.int64)
    for place, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        box = deepest[y0:y1, x0:x1]
        if box.size:
            depth[place] = box.max() + 1
            box[...] = depth[place]
    order = np.argsort(depth, kind="stable")
    splits = np.flatnonzero(np.diff(depth[order])) + 1
    parts = np.split(order, splits) if len(order) else []
    return [torch.from_numpy(part).to(geometry.device) for part in parts if depth[part[0]]]


def composite(
    canvas: Tensor,
    touched: Touched,
    colors: Tensor,
    opacity: float = 1.0,
    target: Tensor | None = None,
    min_gain: float = 0.0,
) -> Tensor:
    """Paint N strokes that touch no common pixel, of colours (N, 3), onto a canvas (H W, 3) in [0, 1], in place.

    Args:
        target: (H W, 3); strokes that do not bring the canvas closer to it are left out.
        min_gain: mean lowering of |canvas - target|, over the stroke's paint, that a stroke must reach.

    Returns:
        (N,) bool, which strokes have been painted.
    """
    base = canvas[touched.place]  # (P, 3)
    mask, shaded = touched.mask[:, None] * opacity, touched.shaded[:, None] * opacity
    painted = torch.addcmul(base, mask, base, value=-1).addcmul_(shaded, colors[touched.stroke]).clamp_(0, 1)
    kept = torch.ones(len(colors), dtype=torch.bool, device=canvas.device)
    if target is not None:
        wanted = target[touched.place]
        gain = ((base - wanted).abs_().sum(-1)).sub_((painted - wanted).abs_().sum(-1)).div_(3)
        total = torch.zeros(len(colors), device=canvas.device).index_add_(0, touched.stroke, gain)
        area = torch.zeros(len(colors), device=canvas.device).index_add_(0, touched.stroke, touched.mask)
        kept = total > min_gain * area
        painted = torch.where(kept[touched.stroke][:, None], painted, base)
    canvas[touched.place] = painted
    return kept
