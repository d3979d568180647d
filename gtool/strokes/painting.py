"""Painting an image layer by layer, coarse to fine: at every level patches are looked at, and strokes that help stay.

Paint Transformer (Liu et al. 2021), section 3.4; compared with Huage001/PaintTransformer, inference/inference.py.
Level k cuts the image into patches of 1 / 2^k of its longer side, seen at 32 pixels a side; after the last level the
patches are shifted by half, so that strokes cross their borders; with `interest` an eighth is painted once more with
strokes of half the size.

Deviations, with their reasons: patches cover the image alone and repeat its edge pixels (the reference pads to a
square of a power of two with black, and leaves black specks); images are resampled with antialiasing; the canvas
begins as a ground colour under broad strokes that leave nothing bare; the decision is thresholded in the shifted
pass too; a stroke stays only where it brings the canvas nearer to the image, which is tried on the canvas itself.

Axis letters: N patches, K strokes a patch, n strokes, H W pixels of the image, h w pixels of a level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.nn.resample import resample
from gtool.runtime.torch_random import make_generator
from gtool.strokes.brush import Brush
from gtool.strokes.canvas import Painting, draw_on, overlaps, sample_under, to_pixels
from gtool.strokes.proposals import Predictor, propose
from gtool.strokes.renderer import Touched, composite, touch_in_layers
from gtool.strokes.saliency import STRONGEST
from gtool.strokes.settings import PATCH_SIZE, PaintSettings

MIN_GAIN = 1 / 255  # mean lowering of the error under a stroke, below which it is not painted
MIN_REPAINTED = 1 / 32  # share of a patch that is to be repainted, below which finer patches see to it
MIN_INSIDE = 0.35  # share of a new stroke's ink that has to lie where the painting is to be repainted
# Shares of the patches, those with most error left where the eye goes, that are painted once more: shifted by half a
# patch, and with strokes of half the size.
SHIFTED_PASS_SHARE, LAST_PASS_SHARE = 0.6, 1 / 8
UNDER, LONGER = (
    1.9,
    1.1,
)  # sides of the strokes that a painting begins with: in cells, and the other in the first
SHARE = 0.6  # of the strokes left that one pass may take


@dataclass(frozen=True)
class Kept:
    """What stays of an earlier painting of nearly the same image; the rest is painted anew."""

    strokes: Painting  # each comes in the pass that its level names; the underpainting is among them
    repaint: Tensor  # (1, H, W) in [0, 1], where new strokes may go


@dataclass(frozen=True)
class PyramidLevel:
    """The patches of one pass over an image: `side` image pixels a side, from (left, top) on."""

    number: int
    side: int
    left: int
    top: int
    columns: int
    rows: int
    patch_size: int

    def to_image(self, geometry: Tensor) -> Tensor:
        """Strokes (n, 5) in pixels of the level -> pixels of the image."""
        moved = to_pixels(geometry, self.side / self.patch_size)
        return _moved(moved, self.left, self.top)

    def from_image(self, geometry: Tensor) -> Tensor:
        """Strokes (n, 5) in pixels of the image -> pixels of the level."""
        return to_pixels(_moved(geometry, -self.left, -self.top), self.patch_size / self.side)

    def resample(self, image: Tensor, most: float = 1.0) -> Tensor:
        """(C, H, W) in [0, most] -> (C, h, w), its edges repeated where patches reach beyond the image."""
        _, height, width = image.shape
        right = self.left + self.columns * self.side - width
        bottom = self.top + self.rows * self.side - height
        padded = F.pad(image[None], (-self.left, right, -self.top, bottom), mode="replicate")
        size = (self.rows * self.patch_size, self.columns * self.patch_size)
        return resample(padded, size, antialias=True)[0].clamp(0, most)

    def to_image_size(self, picture: Tensor, size: torch.Size) -> Tensor:
        """(C, h, w) -> (C, H, W), roughly."""
        height, width = size
        scale = self.patch_size / self.side
        top, left, bottom, right = (
            round(scale * edge) for edge in (-self.top, -self.left, height - self.top, width - self.left)
        )
        inside = picture[:, top : max(bottom, top + 1), left : max(right, left + 1)]
        return resample(inside[None], (height, width), antialias=True)[
            0
        ]  # the same bits by any number of threads

    def patches(self, image: Tensor) -> Tensor:
        """(C, h, w) -> (N, C, R, R), row by row."""
        size = self.patch_size
        cut = image.reshape(-1, self.rows, size, self.columns, size).permute(1, 3, 0, 2, 4)
        return cut.reshape(-1, image.shape[0], size, size)


def _moved(geometry: Tensor, right: int, down: int) -> Tensor:
    """Strokes (n, 5) elsewhere."""
    return torch.cat([geometry[:, :1] + right, geometry[:, 1:2] + down, geometry[:, 2:]], dim=1)


def deepest_level(height: int, width: int, patch_size: int = PATCH_SIZE) -> int:
    """Return the level at which a patch of the image has about as many pixels as the predictor looks at."""
    return max(0, math.ceil(math.log2(max(height, width) / patch_size)))


def passes(height: int, width: int, levels: int, patch_size: int = PATCH_SIZE) -> Iterator[PyramidLevel]:
    """Yield the levels 0 to `levels`, and the last one shifted by half a patch."""
    for number in range(levels + 1):
        yield _level(height, width, number, number, patch_size)
    if levels:
        last = _level(height, width, levels, levels + 1, patch_size)
        half = last.side // 2
        yield replace(
            last, left=last.left - half, top=last.top - half, columns=last.columns + 1, rows=last.rows + 1
        )


def _level(height: int, width: int, halvings: int, number: int, patch_size: int) -> PyramidLevel:
    side = max(1, math.ceil(max(height, width) / 2**halvings))
    columns, rows = math.ceil(width / side), math.ceil(height / side)
    left, top = (width - columns * side) // 2, (height - rows * side) // 2
    return PyramidLevel(number, side, left, top, columns, rows, patch_size)


@dataclass(frozen=True)
class _Strokes:
    """Strokes so far, in pixels of the image."""

    geometry: Tensor  # (n, 5)
    colors: Tensor  # (n, 3)
    levels: Tensor  # (n,) int64

    def add(self, geometry: Tensor, colors: Tensor, level: int) -> _Strokes:
        levels = torch.full((len(colors),), level, device=colors.device)
        pairs = ((self.geometry, geometry), (self.colors, colors), (self.levels, levels))
        return _Strokes(*map(torch.cat, pairs))


@dataclass(frozen=True)
class _Pass:
    """The inputs of one pass: `room`, how many more strokes may come; the maps are as large as the level's pixels."""

    level: PyramidLevel
    room: int | None
    repaint: Tensor | None  # (1, h, w) in [0, 1], where strokes are wanted
    interest: Tensor | None  # (1, h, w), how much places draw the eye
    canvas: Tensor | None  # (3, h, w), as it is so far; None draws the strokes
    share: float  # of the patches, those that want most of it, that are looked at


def paint(
    image: Tensor,
    settings: PaintSettings,
    brush: Brush,
    predictor: Predictor | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    kept: Kept | None = None,
    interest: Tensor | None = None,
) -> Painting:
    """Paint an image (3, H, W) in [0, 1] with a brush on its device.

    predictor: unused by the methods without a network; progress: is told how many passes of how many are done;
    kept: strokes to begin with, None starts from the bare ground; interest: of `gtool.strokes.saliency`, spends the
    strokes where the eye goes, with one pass more; None paints everything alike.
    """
    _, height, width = image.shape
    longer = max(height, width)
    red, green, blue = settings.ground or image.mean(dim=(1, 2)).tolist()
    settings = replace(settings, ground=(red, green, blue))
    empty = torch.empty(0, device=image.device)
    strokes = _Strokes(empty.view(0, 5), empty.view(0, 3), empty.long())
    if kept is None:
        strokes = strokes.add(*_underpainting(image, settings.seed, settings.longest), 0)
    levels, canvas = list(passes(height, width, settings.levels, settings.patch_size)), image
    if interest is not None:
        interest = F.interpolate(interest[None], (height, width), mode="bilinear")[0]
        levels.append(_level(height, width, settings.levels + 1, settings.levels + 2, settings.patch_size))
    for number, level in enumerate(levels):
        progress(number, len(levels))
        later = 0
        if kept is not None:
            mine = kept.strokes.levels == level.number
            strokes = strokes.add(
                to_pixels(kept.strokes.shape_params[mine], longer), kept.strokes.colors[mine], level.number
            )
            later = int((kept.strokes.levels > level.number).sum())
        is_last = interest is None or number + 1 == len(levels)
        room = _room(settings.max_strokes, len(strokes.colors) + later, 1.0 if is_last else SHARE)
        if room is None or room > 0:
            finish = canvas if interest is not None and number > settings.levels else None
            inputs = _resampled_pass(
                level, room, kept, interest, finish, LAST_PASS_SHARE if is_last else SHIFTED_PASS_SHARE
            )
            geometry, colors, canvas = _paint_pass(image, settings, brush, predictor, inputs, strokes)
            strokes = strokes.add(geometry, colors, level.number)
    progress(len(levels), len(levels))
    shape_params = to_pixels(strokes.geometry, 1 / longer)
    painting = Painting(
        width / height,
        shape_params,
        strokes.colors,
        strokes.levels,
        (red, green, blue),
        brush,
        settings.opacity,
    )
    return painting if settings.max_strokes is None else painting[: settings.max_strokes]


def _resampled_pass(
    level: PyramidLevel,
    room: int | None,
    kept: Kept | None,
    interest: Tensor | None,
    canvas: Tensor | None,
    share: float,
) -> _Pass:
    """Resample maps and canvas, as large as the image, for one pass."""
    return _Pass(
        level,
        room,
        None if kept is None else level.resample(kept.repaint),
        None if interest is None else level.resample(interest, most=STRONGEST),
        None if canvas is None else level.resample(canvas),
        share,
    )


def _room(most: int | None, taken: int, share: float) -> int | None:
    """Return how many strokes of a budget one pass may paint; None for any number."""
    return None if most is None else math.ceil(share * (most - taken))


def _paint_pass(
    image: Tensor,
    settings: PaintSettings,
    brush: Brush,
    predictor: Predictor | None,
    inputs: _Pass,
    strokes: _Strokes,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the strokes of one pass, after those of the passes before.

    Returns:
        geometry (n, 5) in pixels of the image, colours (n, 3), and the canvas with them, (3, H, W).
    """
    level, repaint = inputs.level, inputs.repaint
    target = level.resample(image)
    geometry, colors = level.from_image(strokes.geometry), strokes.colors
    numbers = torch.arange(level.rows * level.columns, device=image.device)
    if repaint is not None:
        wanted = (level.patches(repaint).mean(dim=(1, 2, 3)) > MIN_REPAINTED).float()
        numbers = wanted.nonzero().squeeze(1)
        if not len(numbers):
            return geometry[:0], colors[:0], image
        # Strokes of a patch reach into those beside it.
        cells = F.max_pool2d(wanted.view(1, 1, level.rows, level.columns), 3, 1, 1)[0, 0] > 0
        near = overlaps(geometry, cells, level.patch_size)
        geometry, colors = geometry[near], colors[near]
    if inputs.canvas is None or inputs.interest is None:
        canvas = image.new_tensor(settings.ground).expand(*target.shape[1:], 3).contiguous()
        draw_on(canvas, geometry, colors, brush, settings.opacity)
    else:
        canvas = inputs.canvas.permute(1, 2, 0).contiguous()
        wanting = (target - inputs.canvas).abs().mean(0, keepdim=True) * inputs.interest
        error = level.patches(wanting).mean(dim=(1, 2, 3))
        numbers = error.topk(math.ceil(inputs.share * len(error))).indices.sort().values
    if repaint is not None:
        # What stays is as it should be: a stroke that covers it has that against it.
        target = torch.lerp(canvas.permute(2, 0, 1), target, repaint)
    targets, canvases = (level.patches(x)[numbers] for x in (target, canvas.permute(2, 0, 1)))
    shapes, gain = propose(settings, brush, predictor, level.number, targets, canvases, numbers)
    corner = torch.stack([numbers % level.columns, numbers // level.columns], dim=-1).to(shapes)
    proposed = to_pixels(shapes, level.patch_size)
    proposed[..., :2] += level.patch_size * corner[:, None]
    proposed = _within_limits(proposed, settings, max(image.shape[1:]) * level.patch_size / level.side)
    # First strokes of all patches before second ones: each level is blocked in before it is finished.
    proposed, gain = proposed.transpose(0, 1).reshape(-1, 5), gain.T.reshape(-1)
    if not settings.keep_all:
        proposed, gain = proposed[gain > 0], gain[gain > 0]
    if repaint is not None:
        inside = sample_under(proposed, repaint)[0].mean(-1) >= MIN_INSIDE
        proposed, gain = proposed[inside], gain[inside]
    if inputs.interest is not None:
        gain = gain * sample_under(proposed, inputs.interest)[0].mean(-1)
    if inputs.room is not None and len(proposed) > inputs.room:
        best = gain.topk(inputs.room).indices.sort().values
        proposed = proposed[best]
    stayed, tints = _try(settings, brush, proposed, target, canvas)
    seen = level.to_image_size(canvas.permute(2, 0, 1), image.shape[1:])
    return level.to_image(proposed[stayed]), tints[stayed], seen


def _within_limits(geometry: Tensor, settings: PaintSettings, longer: float) -> Tensor:
    """Enlarge or reduce strokes (..., 5) whose longer side is outside the limits; `longer` is that of the picture."""
    length = geometry[..., 2:4].amax(-1, keepdim=True).clamp(min=1e-6)
    wanted = length.clamp(settings.shortest * longer, settings.longest * longer)
    return torch.cat([geometry[..., :2], geometry[..., 2:4] * (wanted / length), geometry[..., 4:]], dim=-1)


def underpainting_cells(height: int, width: int, longest: float = 1.0) -> tuple[int, int]:
    """Return rows and columns of the strokes that a painting begins with, none longer than a share of its side."""
    cell = max(height, width) * min(1 / 6, longest / (UNDER * LONGER))
    return math.ceil(height / cell), math.ceil(width / cell)


def _underpainting(image: Tensor, seed: int, longest: float) -> tuple[Tensor, Tensor]:
    """Broad strokes of the image's own colours that leave no canvas bare: geometry (n, 5), colours (n, 3)."""
    _, height, width = image.shape
    rows, columns = underpainting_cells(height, width, longest)
    means = resample(image[None], (rows, columns), antialias=True)
    step_x, step_y = width / columns, height / rows
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    random = make_generator(seed, "painting")
    order = torch.randperm(rows * columns, generator=random)
    angle = torch.rand(rows * columns, generator=random)
    # Wide enough that the ink of neighbours overlaps at any angle.
    length = UNDER * max(step_x, step_y)
    sides = torch.tensor([[length, LONGER * length]]).expand(rows * columns, 2)
    geometry = torch.cat(
        [(x * step_x).reshape(-1, 1), (y * step_y).reshape(-1, 1), sides, angle[:, None]], dim=1
    )
    return geometry[order].to(image.device), means[0].flatten(1).T[order.to(image.device)]


def _try(
    settings: PaintSettings, brush: Brush, proposed: Tensor, target: Tensor, canvas: Tensor
) -> tuple[Tensor, Tensor]:
    """Paint strokes (n, 5) that help onto a canvas (h, w, 3), in place: numbers of those, colours (n, 3) of all."""
    height, width, _ = canvas.shape
    flat, wanted = canvas.view(-1, 3), target.permute(1, 2, 0).reshape(-1, 3).contiguous()
    stayed = torch.zeros(len(proposed), dtype=torch.bool, device=canvas.device)
    tints = torch.zeros(len(proposed), 3, device=canvas.device)
    for layer, touched in touch_in_layers(brush, proposed, height, width):
        tints[layer] = tint = _tints(touched, wanted, len(layer))
        judge = None if settings.keep_all else wanted
        stayed[layer] = composite(flat, touched, tint, settings.opacity, judge, MIN_GAIN)
    return stayed.nonzero().squeeze(1), tints


def _tints(touched: Touched, target: Tensor, count: int) -> Tensor:
    """Mean colour of the target under each of `count` strokes: (n, 3)."""
    weights = torch.zeros(count, device=target.device).index_add_(0, touched.stroke, touched.mask)
    sums = torch.zeros(count, 3, device=target.device)
    sums.index_add_(0, touched.stroke, touched.mask[:, None] * target.index_select(0, touched.place))
    return sums / (weights[:, None] + 1e-4)
