"""Painting the frames of a clip so that what is still stays still: the same strokes, bit for bit.

Every frame is compared with what each place was last painted for, so that slow drift is noticed too and the noise
of a codec is not. Strokes most of whose ink lies where something has changed since they were painted go. The others
stay, in their order and under the same finer ones, and the places that changed are painted anew among them, pass
after pass. Where most of a frame has changed, as at a cut, a new painting begins.

Axis letters: N strokes, H W pixels of a frame, h w pixels at which frames are compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.strokes.brush import Brush
from gtool.strokes.canvas import Painting, to_pixels
from gtool.strokes.coverage import cells_of, overlaps, sample_under, visible_ink
from gtool.strokes.painting import Kept, paint, underpainting_cells
from gtool.strokes.proposals import SELECTION_SIZE, Predictor
from gtool.strokes.settings import PaintSettings

# Difference, on average over a window of 3 x 3 compared pixels, which are 7 or more pixels of a frame a side: noise of
# a sensor (standard deviation 10/255) and H.264 at its default quality stay below a third of it.
CHANGED = 0.04
AROUND = 2  # compared pixels around a change that count as changed
STALE = 0.65  # share of its ink where something changed, from which a stroke goes
HIDDEN = 0.3  # share of its ink that is seen, below which a stroke of a later frame goes
CUT = 0.75  # share of changed pixels from which nothing of the painting is kept
CELL = 8  # compared pixels


@dataclass(frozen=True)
class _Shown:
    """A painted frame, and what it was painted for."""

    painting: Painting
    born: Tensor  # (N,) int64, the frame that each stroke is of
    seen: Tensor  # (3, h, w), what each place was last painted for
    changed_in: Tensor  # (h, w) int64, the frame in which


class ClipPainter:
    """Paints frame after frame of one size; holds one painting and two small pictures.

    plan: for every frame; without a ground, each shot has the mean of its first frame.
    brush: on the device of the frames.
    predict: as for `gtool.strokes.painting.paint`.
    """

    def __init__(self, plan: PaintSettings, brush: Brush, predict: Predictor | None) -> None:
        self.plan = plan
        self.shots = 0  # begun
        self.new_strokes = 0  # in the last frame
        self._brush = brush
        self._predict = predict
        self._number = self._begun = 0  # of this frame and of the first of its shot
        self._shown: _Shown | None = None

    def paint(self, frame: Tensor) -> Painting:
        """Paint the next frame, (3, H, W) in [0, 1]; where nothing changed, the same painting is returned."""
        seen = _reduce(frame, self.plan.levels)
        self._number += 1
        shown = self._shown
        changed = None if shown is None else _changed(seen, shown.seen)
        if shown is None or changed is None or changed.float().mean() > CUT:
            self._shown = self._begin(frame, seen)
        elif changed.any():
            self._shown = self._continue(shown, frame, seen, changed)
        else:
            self.new_strokes = 0
        assert self._shown is not None
        return self._shown.painting

    def _begin(self, frame: Tensor, seen: Tensor) -> _Shown:
        painting = paint(frame, self.plan, self._brush, self._predict)
        self.shots += 1
        self._begun = self._number
        self.new_strokes = len(painting)
        born = torch.full((len(painting),), self._number, device=frame.device)
        return _Shown(painting, born, seen, torch.full_like(seen[0], self._number, dtype=torch.long))

    def _continue(self, shown: _Shown, frame: Tensor, seen: Tensor, changed: Tensor) -> _Shown:
        height, width = changed.shape
        changed_in = torch.where(changed, self._number, shown.changed_in)
        geometry = to_pixels(shown.painting.shape_params, max(height, width))
        stale = sample_under(geometry, changed_in[None])[0] > shown.born[:, None]  # (N, 25)
        goes = stale.float().mean(-1) > STALE
        # The underpainting keeps its places for the whole shot, so that no ground is laid bare; colours follow.
        under = math.prod(underpainting_cells(*frame.shape[1:]))
        followed = goes[:under].nonzero().squeeze(1)
        painting, born = replace(shown.painting, colors=shown.painting.colors.clone()), shown.born.clone()
        painting.colors[followed] = sample_under(geometry[followed], seen).mean(-1).T
        born[followed] = self._number
        goes[:under] = False
        # Where something moves, paint would pile up. Strokes of the first frame, far-reaching ones among them, stay.
        loose = born > self._begun
        loose[:under] = False
        goes, bared = self._uncover(geometry, goes, loose, (height, width))
        kept = painting[~goes]
        anew = F.interpolate((changed | bared)[None, None].float(), frame.shape[1:])[0]
        plan = replace(self.plan, ground=painting.ground)
        made = paint(frame, plan, self._brush, self._predict, kept=Kept(kept, anew))
        place = _places(made.levels, kept.levels)
        # As they were to the last bit: pixels and shares of a side are not the same number twice.
        made.shape_params[place] = kept.shape_params
        born_now = torch.full_like(made.levels, self._number)
        born_now[place] = born[~goes]
        self.new_strokes = len(made) - len(kept)
        return _Shown(made, born_now, torch.where(changed, seen, shown.seen), changed_in)

    def _uncover(
        self, geometry: Tensor, goes: Tensor, loose: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Let hidden strokes go too, where they are loose, and find where all that go are missed.

        Args:
            geometry: (N, 5) in compared pixels.
            goes: (N,) bool.
            loose: (N,) bool, which may go.
            size: h, w.

        Returns:
            (N,) bool, what goes, and (h, w) bool, where it was clearly seen.
        """
        height, width = size
        around = cells_of(geometry[goes], -(-height // CELL), -(-width // CELL), CELL)
        near = overlaps(geometry, around, CELL).nonzero().squeeze(1)
        share, place, stroke = visible_ink(self._brush, geometry[near], self.plan.opacity, size)
        goes = goes.index_put((near,), goes[near] | (loose[near] & (share < HIDDEN)))
        bared = torch.zeros(height * width, dtype=torch.bool, device=geometry.device)
        bared[place[goes[near[stroke]]]] = True
        return goes, bared.view(size)


def _reduce(frame: Tensor, levels: int) -> Tensor:
    """A frame (3, H, W) at the size at which it is compared, 16 pixels to a patch of the last level: (3, h, w)."""
    _, height, width = frame.shape
    patch = math.ceil(max(height, width) / 2**levels)
    scale = min(0.5, SELECTION_SIZE / patch)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(frame[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def _changed(seen: Tensor, before: Tensor) -> Tensor:
    """Say where two small frames (3, h, w) differ by more than noise: (h, w) bool."""
    difference = F.avg_pool2d((seen - before)[None], 3, 1, 1, count_include_pad=False)
    moved = (difference.abs().amax(1) > CHANGED).float()
    return F.max_pool2d(moved, 2 * AROUND + 1, 1, AROUND)[0] > 0


def _places(levels: Tensor, kept: Tensor) -> Tensor:
    """Where strokes that stayed are among all, given the levels (rising) of both: the first ones of each level."""
    first = torch.searchsorted(levels, kept)
    rank = torch.arange(len(kept), device=kept.device) - torch.searchsorted(kept, kept)
    return first + rank
