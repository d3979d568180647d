"""Painting a photo, coarse to fine: at every level patches of it are looked at, and strokes that help are kept.

Paint Transformer (Liu et al. 2021), section 3.4; compared with Huage001/PaintTransformer, inference/inference.py.
Level k cuts the photo into patches of 1 / 2^k of its longer side, seen at 32 pixels a side; after the last level
the patches are shifted by half, so that strokes cross their borders.

Deviations, with their reasons: patches cover the photo alone and repeat its edge pixels (the reference pads to a
square of a power of two with black, and leaves black specks); images are resampled without aliasing; the canvas
begins as a ground colour under broad strokes that leave nothing bare; the decision is thresholded in the shifted
pass too; a stroke stays only where it brings the canvas nearer to the photo, which is tried on the canvas itself.

Axis letters: N patches, S proposals, K strokes a patch, H W pixels of a level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.models.paint_transformer.config import PATCH
from gtool.models.paint_transformer.proposals import Method, Predict, Proposer, Select, propose
from gtool.paint.coverage import look_under, meets
from gtool.runtime.torch_random import make_generator
from gtool.strokes.brush import Brush
from gtool.strokes.canvas import Painting, draw_on, to_pixels
from gtool.strokes.renderer import Touched, composite, layers, touch

LEAST_GAIN = 1 / 255  # mean lowering of the error under a stroke that is worth a stroke
LEAST_ANEW = 1 / 32  # share of a patch that is painted anew, for it to be looked at; finer ones see the rest
MOSTLY = 0.6  # share of the ink of a new stroke that lies where a painting is painted anew


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to paint."""

    levels: int  # the last one; level 0 is one patch
    strokes: int = 8  # a patch
    method: Method = "predictor"
    select: Select = "gain"
    keep_all: bool = False  # also strokes that do not help
    max_strokes: int | None = None
    opacity: float = 1.0
    ground: tuple[float, float, float] | None = None  # None: the photo's mean colour
    seed: int = 0


@dataclass(frozen=True)
class Earlier:
    """What stays of an earlier painting of nearly the same photo; the rest is painted anew.

    strokes: those that stay; each is painted in the pass that its level names, before the new ones of that pass.
    anew: (1, H, W) in [0, 1], where new strokes may go.
    """

    strokes: Painting
    anew: Tensor

    def of_pass(self, number: int, longer: int) -> tuple[Tensor, Tensor]:
        """Geometry in pixels of the photo and colours of the strokes of a pass."""
        mine = self.strokes.levels == number
        return to_pixels(self.strokes.shape_params[mine], longer), self.strokes.colors[mine]

    def count_after(self, number: int) -> int:
        """How many strokes of later passes stay."""
        return int((self.strokes.levels > number).sum())


@dataclass(frozen=True)
class _Level:
    """The patches of a level over a photo (3, H, W): `patch` photo pixels a side, from (left, top) on."""

    number: int
    patch: int
    left: int
    top: int
    columns: int
    rows: int

    @property
    def scale(self) -> float:
        """Pixels of the level a pixel of the photo."""
        return PATCH / self.patch

    def to_photo(self, geometry: Tensor) -> Tensor:
        """Strokes in pixels of the level -> pixels of the photo."""
        grow = self.patch / PATCH
        moved = geometry * geometry.new_tensor([grow, grow, grow, grow, 1.0])
        return moved + geometry.new_tensor([float(self.left), float(self.top), 0.0, 0.0, 0.0])

    def from_photo(self, geometry: Tensor) -> Tensor:
        """Strokes in pixels of the photo -> pixels of the level."""
        moved = geometry - geometry.new_tensor([float(self.left), float(self.top), 0.0, 0.0, 0.0])
        return moved * geometry.new_tensor([self.scale] * 4 + [1.0])


def deepest_level(height: int, width: int) -> int:
    """Return the level at which a patch of the network is about a patch of the photo."""
    return max(0, math.ceil(math.log2(max(height, width) / PATCH)))


def paint(
    photo: Tensor,
    plan: Plan,
    brush: Brush,
    predict: Predict | None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    earlier: Earlier | None = None,
) -> Painting:
    """Paint a photo.

    Args:
        photo: (3, H, W) in [0, 1].
        plan: how.
        brush: on the device of the photo.
        predict: targets and canvases (n, 3, 32, 32) to proposals; unused by the methods without a network.
        progress: is told how many passes of how many are done.
        earlier: the strokes to begin with, its underpainting among them; None starts from the bare ground.
    """
    _, height, width = photo.shape
    longer = max(height, width)
    ground = plan.ground or tuple(photo.mean(dim=(1, 2)).tolist())
    proposer = Proposer(plan.method, plan.select, plan.strokes, plan.seed, brush, predict)
    strokes = _Strokes(photo.device)
    passes = list(_passes(plan.levels, height, width))
    if earlier is None:
        _underpaint(strokes, photo, make_generator(plan.seed, "painting"))
    for number, level in enumerate(passes):
        progress(number, len(passes))
        later = 0
        if earlier is not None:
            strokes.add(*earlier.of_pass(number, longer), number)
            later = earlier.count_after(number)
        room = None if plan.max_strokes is None else plan.max_strokes - len(strokes) - later
        if room is None or room > 0:
            anew = None if earlier is None else _see(earlier.anew, level)
            canvas = (
                photo.new_tensor(ground).expand(level.rows * PATCH, level.columns * PATCH, 3).contiguous()
            )
            found = _paint_pass(plan, proposer, level, _see(photo, level), canvas, strokes, room, anew)
            strokes.add(*found, number)
    progress(len(passes), len(passes))
    geometry, colors, levels = strokes.join()
    if plan.max_strokes is not None:
        geometry, colors, levels = (x[: plan.max_strokes] for x in (geometry, colors, levels))
    return Painting(
        aspect=width / height,
        shape_params=to_pixels(geometry, 1 / longer),
        colors=colors,
        levels=levels,
        ground=(ground[0], ground[1], ground[2]),
        brush=brush.name,
        opacity=plan.opacity,
    )


class _Strokes:
    """Strokes painted so far, in pixels of the photo."""

    def __init__(self, device: torch.device) -> None:
        self._parts = [(torch.empty(0, 5, device=device), torch.empty(0, 3, device=device))]
        self._levels = [torch.empty(0, dtype=torch.long, device=device)]

    def __len__(self) -> int:
        return sum(len(colors) for _, colors in self._parts)

    def add(self, geometry: Tensor, colors: Tensor, level: int) -> None:
        self._parts.append((geometry, colors))
        self._levels.append(torch.full((len(colors),), level, device=colors.device))

    def join(self) -> tuple[Tensor, Tensor, Tensor]:
        geometry, colors = (torch.cat(part) for part in zip(*self._parts, strict=True))
        return geometry, colors, torch.cat(self._levels)


def _passes(deepest: int, height: int, width: int) -> Iterator[_Level]:
    longer = max(height, width)
    for number in range(deepest + 1):
        patch = max(1, math.ceil(longer / 2**number))
        columns, rows = math.ceil(width / patch), math.ceil(height / patch)
        left, top = (width - columns * patch) // 2, (height - rows * patch) // 2
        yield _Level(number, patch, left, top, columns, rows)
    if deepest:
        half = patch // 2
        yield _Level(deepest + 1, patch, left - half, top - half, columns + 1, rows + 1)


def _paint_pass(
    plan: Plan,
    proposer: Proposer,
    level: _Level,
    target: Tensor,
    canvas: Tensor,
    strokes: _Strokes,
    room: int | None,
    anew: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Find the strokes of a pass: geometry (n, 5) in pixels of the photo and colours (n, 3).

    Args:
        plan: how to paint.
        proposer: what proposes strokes.
        level: of the pass.
        target: (3, h, w), the photo at the level.
        canvas: (h, w, 3), the bare ground; painted on.
        strokes: of the passes before.
        room: at most so many.
        anew: (1, h, w) in [0, 1], where strokes are wanted; None for everywhere.
    """
    geometry, colors, _ = strokes.join()
    geometry = level.from_photo(geometry)
    patches = None
    if anew is not None:
        wanted = (_patches(anew, level).mean(dim=(1, 2, 3)) > LEAST_ANEW).float()
        wanted = wanted.view(1, 1, level.rows, level.columns)
        patches = wanted.flatten().nonzero().squeeze(1)
        if not len(patches):
            return geometry[:0], colors[:0]
        # Strokes of a patch reach into those beside it.
        near = meets(geometry, F.max_pool2d(wanted, 3, 1, 1)[0, 0] > 0, PATCH)
        geometry, colors = geometry[near], colors[near]
    draw_on(canvas, geometry, colors, proposer.brush, plan.opacity)
    if anew is not None:
        # What stays is as it should be: a stroke that covers it has that against it.
        target = torch.lerp(canvas.permute(2, 0, 1), target, anew)
    proposed, gain = _propose(proposer, level, target, canvas, patches, plan.keep_all)
    if anew is not None:
        inside = look_under(proposed, anew)[0].mean(-1) >= MOSTLY
        proposed, gain = proposed[inside], gain[inside]
    if room is not None and len(proposed) > room:
        proposed = proposed[gain.topk(room).indices.sort().values]
    chosen, tints = _try(plan, proposer.brush, proposed, target, canvas)
    return level.to_photo(proposed[chosen]), tints[chosen]


def underpainting_cells(height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the strokes that a painting begins with."""
    cell = max(height, width) / 6
    return math.ceil(height / cell), math.ceil(width / cell)


def _underpaint(strokes: _Strokes, photo: Tensor, random: torch.Generator) -> None:
    """Cover the canvas with broad strokes of the photo's own colours, as painters block in a picture."""
    _, height, width = photo.shape
    rows, columns = underpainting_cells(height, width)
    means = F.interpolate(
        photo[None], size=(rows, columns), mode="bilinear", antialias=True, align_corners=False
    )
    step_x, step_y = width / columns, height / rows
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    order = torch.randperm(rows * columns, generator=random)
    angle = torch.rand(rows * columns, generator=random)
    # Wide enough that the ink of neighbours overlaps at any angle.
    length = 1.9 * max(step_x, step_y)
    sides = torch.tensor([[length, 1.1 * length]]).expand(rows * columns, 2)
    geometry = torch.cat(
        [(x * step_x).reshape(-1, 1), (y * step_y).reshape(-1, 1), sides, angle[:, None]], dim=1
    )
    colors = means[0].flatten(1).T
    strokes.add(geometry[order].to(photo.device), colors[order.to(photo.device)], 0)


def _try(plan: Plan, brush: Brush, proposed: Tensor, target: Tensor, canvas: Tensor) -> tuple[Tensor, Tensor]:
    """Paint strokes (n, 5) that help onto a canvas (H, W, 3), in place.

    Returns:
        the numbers of those that stayed, and the colours (n, 3) of all.
    """
    height, width, _ = canvas.shape
    flat, wanted = canvas.view(-1, 3), target.permute(1, 2, 0).reshape(-1, 3).contiguous()
    stayed = torch.zeros(len(proposed), dtype=torch.bool, device=canvas.device)
    tints = torch.zeros(len(proposed), 3, device=canvas.device)
    judge = None if plan.keep_all else wanted
    for layer in layers(proposed, height, width):
        touched = touch(brush, proposed[layer], height, width)
        tints[layer] = tint = _tints(touched, wanted, len(layer))
        stayed[layer] = composite(
            flat, touched, tint, opacity=plan.opacity, target=judge, least_gain=LEAST_GAIN
        )
    return stayed.nonzero().squeeze(1), tints


def _see(photo: Tensor, level: _Level) -> Tensor:
    """The photo at the resolution of a level, its edges repeated where patches reach beyond it: (3, H, W)."""
    _, height, width = photo.shape
    right = level.left + level.columns * level.patch - width
    bottom = level.top + level.rows * level.patch - height
    size = (level.rows * PATCH, level.columns * PATCH)
    pads = (-level.left, right, -level.top, bottom)
    padded = F.pad(photo[None], pads, mode="replicate")
    seen = F.interpolate(padded, size=size, mode="bilinear", antialias=True, align_corners=False)
    return seen[0].clamp(0, 1)


def _tints(touched: Touched, target: Tensor, count: int) -> Tensor:
    """Mean colour of the target under each of `count` strokes: (n, 3)."""
    weights = torch.zeros(count, device=target.device).index_add_(0, touched.stroke, touched.mask)
    sums = torch.zeros(count, 3, device=target.device)
    sums.index_add_(0, touched.stroke, touched.mask[:, None] * target[touched.place])
    return sums / (weights[:, None] + 1e-4)


def _propose(
    proposer: Proposer, level: _Level, target: Tensor, canvas: Tensor, patches: Tensor | None, keep_all: bool
) -> tuple[Tensor, Tensor]:
    """Strokes for patches (n,) or all of them, in pixels of the level and in painting order, with their gains."""
    targets = _patches(target, level)
    canvases = _patches(canvas.permute(2, 0, 1), level)
    numbers = torch.arange(len(targets), device=target.device)
    if patches is not None:
        targets, canvases, numbers = targets[patches], canvases[patches], patches
    shapes, gain = propose(proposer, level.number, targets, canvases, numbers)
    corner = torch.stack([numbers % level.columns, numbers // level.columns], dim=-1).to(shapes) * PATCH
    geometry = to_pixels(shapes, PATCH)
    geometry[..., :2] += corner[:, None]
    # First strokes of all patches before second ones: each level is blocked in before it is finished.
    geometry, gain = geometry.transpose(0, 1).reshape(-1, 5), gain.T.reshape(-1)
    wanted = torch.ones_like(gain, dtype=torch.bool) if keep_all else gain > 0
    return geometry[wanted], gain[wanted]


def _patches(image: Tensor, level: _Level) -> Tensor:
    """(C, H, W) -> (N, C, 32, 32), row by row."""
    cut = image.reshape(-1, level.rows, PATCH, level.columns, PATCH).permute(1, 3, 0, 2, 4)
    return cut.reshape(-1, image.shape[0], PATCH, PATCH)
