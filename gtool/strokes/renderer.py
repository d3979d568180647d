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

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.runtime.device import send
from gtool.strokes.brush import MASTER, SMALLEST, Brush

THINNEST = 1.5  # pixels: what is thinner is drawn so wide, and fainter
MOST_ROWS = 2**20  # of pixels under strokes that are laid out at a time
MARK_TURNS = 4093  # turns of a half circle among which the marks of a brush are dealt out
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
    theta: Tensor  # as given

    def of(self, strokes: slice) -> _Marks:
        """Return some of them."""
        return _Marks(*(getattr(self, field.name)[strokes] for field in fields(self)))


def stand_up(geometry: Tensor) -> Tensor:
    """Write strokes (..., 5) so that none is wider than high, without changing where they lie."""
    x, y, width, height, theta = geometry.unbind(-1)
    theta = torch.where(width > height, theta - 0.5, theta)
    return torch.stack([x, y, torch.minimum(width, height), torch.maximum(width, height), theta], dim=-1)


def mark_of(theta: Tensor, marks: int) -> Tensor:
    """Say which of a brush's marks strokes leave, (...) int64: any, but the same whatever their size and place."""
    return (theta * MARK_TURNS).remainder(1).mul(marks).long().clamp(max=marks - 1)


def turn_to_mark(theta: Tensor, mark: Tensor, marks: int) -> Tensor:
    """Return the turns nearest below or above theta (...), by less than 1 / 4093, that leave the marks (...)."""
    return ((theta * MARK_TURNS).floor() + (mark + 0.5) / marks) / MARK_TURNS


def _marks(geometry: Tensor) -> _Marks:
    x, y, width, height, theta = stand_up(geometry).unbind(-1)
    wide, high = width.clamp(min=THINNEST), height.clamp(min=THINNEST)
    fade = (width.clamp(min=0) / wide) * (height.clamp(min=0) / high)
    angle = torch.pi * theta
    return _Marks(x, y, angle.cos(), angle.sin(), wide, high, fade, geometry[..., 4])


def _texels(brush: Brush, marks: _Marks) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where in the atlas each stroke's brush picture lies, left and top, and its width and height: (N,) each."""
    last = len(brush.sizes) - 1
    across, along = (
        (side.detach() / SMALLEST).log2().round().long().clamp(0, last)
        for side in (marks.width, marks.height)
    )
    top = brush.corners[along]
    if brush.marks > 1:
        top = top + brush.atlas.shape[-1] * mark_of(marks.theta.detach(), brush.marks)
    return brush.corners[across], top, brush.sizes[across], brush.sizes[along]


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
    high, wide = brush.atlas.shape[-2:]
    grid = tx.new_empty(*tx.shape, 2)  # faster than a stack
    grid[..., 0], grid[..., 1] = tx * (2 / wide) - 1, ty * (2 / high) - 1
    flat = grid.view(1, -1, grid.shape[-2], 2) if grid.ndim > 2 else grid.view(1, 1, -1, 2)
    values = F.grid_sample(brush.atlas, flat, mode="bilinear", padding_mode="zeros", align_corners=False)
    return values.view(values.shape[1], *tx.shape)


def render_on_patches(brush: Brush, strokes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Draw strokes (N, S, 5), in units of their patches, on patches of size x size pixels.

    Returns:
        mask and mask times shade, (N, S, P) each with P = size^2; differentiable in the strokes.
    """
    scaled = torch.cat([strokes[..., :4] * size, strokes[..., 4:]], dim=-1)
    mask, shaded = render(brush, scaled.view(-1, 5), size, size)
    shape = (*strokes.shape[:2], -1)
    return mask.view(shape), shaded.view(shape)


def sample_marks(
    brush: Brush, geometry: Tensor, stroke: Tensor, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Look up places (P,) x, y in pixels under the strokes (P,) int64 of N (N, 5).

    Returns:
        mask and mask times shade, (P,) each; differentiable in the geometry.
    """
    marks = _marks(geometry)
    left, top, size_x, size_y = _texels(brush, marks)
    across, along = size_x / marks.width, size_y / marks.height
    turns = (across * marks.cosine, across * marks.sine, along * marks.cosine, along * marks.sine)
    shared = torch.stack([marks.x, marks.y, *turns, left, top, size_x, size_y, marks.fade], dim=1)
    own = shared.index_select(0, stroke).unbind(1)
    dx, dy = x - own[0], y - own[1]
    tx = _within(own[2] * dx + own[3] * dy, own[6], own[8])
    ty = _within(own[4] * dy - own[5] * dx, own[7], own[9])
    mask, shaded = _lookup(brush, tx, ty) * own[10]
    return mask, shaded


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
    first, count = _rows_of(marks, height)
    rows = _rows(brush, marks, first, count, int(count.sum()), width)
    return _pixels(brush, rows, slice(None), 0, int(rows.length.sum()))


def touch_in_layers(
    brush: Brush, geometry: Tensor, height: int, width: int
) -> Iterator[tuple[Tensor, Touched]]:
    """Yield the strokes (n,) of one layer of `layers` after the other, and the pixels they touch.

    Rows of many layers are laid out together: a GPU is waited for a few times for all of them.
    """
    found = layers(geometry, height, width)
    if not found:
        return
    order = send(torch.cat(found), geometry.device)
    marks = _marks(geometry[order])
    first, count = _rows_of(marks, height)
    counts = count.cpu().numpy()
    strokes = np.cumsum([0, *map(len, found)])
    total_rows = np.concatenate([[0], counts.cumsum()])[strokes]  # before each layer
    begin = 0
    while begin < len(found):
        end = begin + max(1, int(np.searchsorted(total_rows[begin + 1 :], total_rows[begin] + MOST_ROWS)))
        here = slice(int(strokes[begin]), int(strokes[end]))
        bounds = total_rows[begin : end + 1] - total_rows[begin]
        rows = _rows(brush, marks.of(here), first[here], count[here], int(bounds[-1]), width)
        ends = send(torch.from_numpy(bounds), geometry.device)
        pixels = F.pad(rows.length.cumsum(0), (1, 0))[ends].diff().tolist()
        for number in range(begin, end):
            part = slice(int(bounds[number - begin]), int(bounds[number - begin + 1]))
            own = slice(int(strokes[number]), int(strokes[number + 1]))
            yield order[own], _pixels(brush, rows, part, own.start - here.start, pixels[number - begin])
        begin = end


@dataclass(frozen=True)
class _Rows:
    """The rows of pixels under N strokes, those of a stroke one after the other."""

    owner: Tensor  # (R,) int64, the stroke
    place: Tensor  # (R,) int64, of the first pixel in the flat canvas
    length: Tensor  # (R,) int64, pixels
    tx: Tensor  # (R,) texel under the middle of the first pixel, from the centre of the brush picture
    ty: Tensor
    step_x: Tensor  # (N,) texels a pixel to the right
    step_y: Tensor
    texels: tuple[Tensor, Tensor, Tensor, Tensor]  # of `_texels`
    fade: Tensor  # (N,)


def _rows_of(marks: _Marks, height: int) -> tuple[Tensor, Tensor]:
    """First row that each mark touches, and their number: (N,) int64 each."""
    a, b = _half_sides(marks)
    reach_y = a * marks.sine.abs() + b * marks.cosine.abs()
    first = (marks.y - reach_y).floor().clamp(0, height).long()
    return first, ((marks.y + reach_y).ceil().clamp(0, height).long() - first).clamp(min=0)


def _rows(brush: Brush, marks: _Marks, first: Tensor, count: Tensor, total: int, width: int) -> _Rows:
    """List the rows of N marks; `total` is how many there are."""
    a, b = _half_sides(marks)
    owner = torch.repeat_interleave(count, output_size=total)  # (R,)
    row = _counting(count, total) + first.index_select(0, owner)  # (R,)
    x, dy = marks.x.index_select(0, owner), row + 0.5 - marks.y.index_select(0, owner)
    left, right = _row_span(marks, a, b, owner, dy)
    start = (left + x).floor().clamp(0, width).long()
    length = ((right + x).ceil().clamp(0, width).long() - start).clamp(min=0)
    texels = _texels(brush, marks)
    across, along = texels[2] / marks.width, texels[3] / marks.height
    step_x, step_y = across * marks.cosine, -along * marks.sine
    dx = start + 0.5 - x
    tx, ty = (
        step.index_select(0, owner) * dx + down.index_select(0, owner) * dy
        for step, down in ((step_x, across * marks.sine), (step_y, along * marks.cosine))
    )
    return _Rows(owner, row * width + start, length, tx, ty, step_x, step_y, texels, marks.fade)


def _pixels(brush: Brush, rows: _Rows, part: slice, first: int, total: int) -> Touched:
    """List the pixels of some of the rows, `total` in number; strokes are counted from `first`."""
    length = rows.length[part]
    line = torch.repeat_interleave(length, output_size=total)  # (P,)
    column = _counting(length, total)
    # `index_select` is some four times as fast as an index in brackets.
    stroke, place, tx, ty = (
        x[part].index_select(0, line) for x in (rows.owner, rows.place, rows.tx, rows.ty)
    )
    step_x, step_y, left, top, size_x, size_y, fade = (
        x.index_select(0, stroke) for x in (rows.step_x, rows.step_y, *rows.texels, rows.fade)
    )
    tx = _within(torch.addcmul(tx, column, step_x), left, size_x)
    ty = _within(torch.addcmul(ty, column, step_y), top, size_y)
    mask, shaded = _lookup(brush, tx, ty) * fade
    return Touched(place + column, stroke - first, mask, shaded)


def _half_sides(marks: _Marks) -> tuple[Tensor, Tensor]:
    """Half width and height of the rectangle outside which a mark is nothing: (N,) each.

    Filtering reaches half a texel, which is more than MARGIN in marks much larger than the largest picture.
    """
    a, b = 0.5 * marks.width, 0.5 * marks.height
    return a + (a / MASTER).clamp(min=MARGIN), b + (b / MASTER).clamp(min=MARGIN)


def _counting(counts: Tensor, total: int) -> Tensor:
    """0, 1, .. counts[0] - 1, 0, 1, .. for every count in turn; `total` is their sum."""
    starts = counts.cumsum(0) - counts
    return torch.arange(total, device=counts.device) - torch.repeat_interleave(
        starts, counts, output_size=total
    )


def _row_span(marks: _Marks, a: Tensor, b: Tensor, owner: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Where a row at height dy enters and leaves the turned rectangle of half axes a, b: (R,) each, from x."""
    c, s, a, b = (x.index_select(0, owner) for x in (marks.cosine, marks.sine, a, b))
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
    it that it may overlap. Indices of the strokes (n,) on the CPU, in rising order, one tensor a layer.
    """
    depth = depths(geometry, height, width)
    order = np.argsort(depth, kind="stable")
    splits = np.flatnonzero(np.diff(depth[order])) + 1
    parts = np.split(order, splits) if len(order) else []
    return [torch.from_numpy(part) for part in parts if depth[part[0]]]


def depths(geometry: Tensor, height: int, width: int, least: np.ndarray | None = None) -> np.ndarray:
    """Number N strokes (N, 5), in pixels, so that painting them by number, equal ones in order, gives the same pixels.

    least: (N,) numbers that they get at least, and that of a stroke before them that they may overlap; None numbers
    layers, in which none overlap, from 1: more by 1 than that of a stroke before. 0 are those outside of the picture.
    """
    marks = _marks(geometry)
    a, b = _half_sides(marks)
    c, s = marks.cosine.abs(), marks.sine.abs()
    reach = torch.stack([a * c + b * s, a * s + b * c], dim=-1)  # (N, 2)
    centre, reach = torch.stack([torch.stack([marks.x, marks.y], dim=-1), reach]).cpu()
    cell = max(2.0, float(reach.median()) / 3) if len(reach) else 2.0
    # Pixels are whole: a stroke holds all of those it grazes.
    low = ((centre - reach).floor() / cell).floor().long().clamp(min=0)
    high = (((centre + reach).ceil() / cell).floor().long() + 1).clamp(min=0)
    cells = torch.tensor([int(width / cell) + 1, int(height / cell) + 1])
    boxes = torch.cat([low, torch.minimum(high, cells)], dim=-1).numpy()
    deepest = np.zeros((int(cells[1]), int(cells[0])), np.int32)
    depth = np.zeros(len(boxes), np.int64)
    for place, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        box = deepest[y0:y1, x0:x1]
        if box.size:
            depth[place] = box.max() + 1 if least is None else max(box.max(), least[place])
            box[...] = np.maximum(box, depth[place])
    return depth


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
    count = len(colors)
    base = canvas.index_select(0, touched.place)  # (P, 3)
    mask, shaded = touched.mask[:, None] * opacity, touched.shaded[:, None] * opacity
    colors = colors.index_select(0, touched.stroke)
    painted = torch.addcmul(base, mask, base, value=-1).addcmul_(shaded, colors).clamp_(0, 1)
    kept = torch.ones(count, dtype=torch.bool, device=canvas.device)
    if target is not None:
        wanted = target.index_select(0, touched.place)
        gain = ((base - wanted).abs_().sum(-1)).sub_((painted - wanted).abs_().sum(-1)).div_(3)
        total = torch.zeros(count, device=canvas.device).index_add_(0, touched.stroke, gain)
        area = torch.zeros(count, device=canvas.device).index_add_(0, touched.stroke, touched.mask)
        kept = total > min_gain * area
        painted = torch.where(kept.index_select(0, touched.stroke)[:, None], painted, base)
    canvas.index_copy_(0, touched.place, painted)
    return kept
