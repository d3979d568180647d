"""Painting the frames of a video so that what is still stays still: the same strokes, bit for bit.

Every frame is compared with what each place was last painted for, so that slow drift is noticed too and the noise
of a codec is not. Strokes most of whose ink lies where something has changed since they were painted go. The others
stay, in their order and under the same finer ones, and the places that changed are painted anew among them, pass
after pass. Where most of a frame has changed, as at a cut, a new painting begins.

Axis letters: N strokes, H W pixels of a frame, h w pixels at which frames are compared.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool import console
from gtool.io.photo import fitting
from gtool.io.pictures import Pixels
from gtool.io.video import Frame, VideoInfo, open_video, write_video
from gtool.nn.resample import resample
from gtool.paint.painter import Painter
from gtool.strokes.brush import Brush
from gtool.strokes.canvas import Painting, cells_of, overlaps, sample_under, to_pixels, visible_ink
from gtool.strokes.painting import Kept, paint, underpainting_cells
from gtool.strokes.proposals import SELECTION_SIZE, Predictor
from gtool.strokes.settings import PaintSettings

# Difference, on average over a window of 3 x 3 compared pixels, which are 7 or more pixels of a frame a side: noise of
# a sensor (standard deviation 10/255) and H.264 at its default quality stay below a third of it.
CHANGED = 0.04
AROUND = 2  # compared pixels around a change that count as changed
STALE = 0.65  # share of its ink where something changed, from which a stroke goes
HIDDEN = 0.3  # share of its ink that is visible, below which a stroke of a later frame goes
CUT = 0.75  # share of changed pixels from which nothing of the painting is kept
CELL = 8  # compared pixels


def paint_video(
    painter: Painter,
    source: Path,
    path: Path,
    info: VideoInfo,
    *,
    max_side: int,
    fps: float | None = None,
    compare: bool = False,
    label: str = "",
) -> dict[str, Any]:
    """Paint a video, of which `inspect_video` gave the info, and write it to .mp4 or .webm, with its sound.

    Args:
        max_side: pixels of the longer side, at most.
        fps: frames a second; None keeps every frame with its own time.
        compare: also measure how near the frames come to those of the source.
        label: what to call it where progress is shown.

    Returns:
        width, height, frames, fps, shots, the mean number of strokes of a frame, and how many of them are new; and l1.

    Raises:
        GToolError: the video cannot be read or written.
    """
    rate = info.rate if fps is None else Fraction(fps).limit_denominator(1000)
    total = info.frames if fps is None else max(1, round(info.frames * rate / info.rate))
    width, height = fitting(info.width, info.height, max_side)
    counts, shots = list[tuple[int, int, float]](), 0
    began = time.perf_counter()
    with (
        open_video(source) as video,
        write_video(path, (height, width), rate, info.pixel_aspect) as written,
        console.progress("painting") as update,
    ):
        for note in info.notes:
            console.notice(f"{source}: {note}")
        if left_out := written.add_tracks(video.audio):
            console.notice(f"{source}: {path.suffix} holds no {', '.join(left_out)} sound, which is left out")
        frames: Iterable[Frame] = video.frames(max_side, written.copy)
        if fps is not None:
            frames = _at_rate(frames, rate, 1 / info.rate)
        for frame, pixels, made in _painted_frames(painter, frames):
            written.add(pixels, frame.time)
            error = np.abs(frame.photo.pixels.astype(np.int16) - pixels).mean() / 255 if compare else 0.0
            counts.append((made.strokes, made.new_strokes, float(error)))
            shots = made.shots
            speed = len(counts) / (time.perf_counter() - began)
            update(len(counts), total, f"{label}, {speed:.2f} frames/s")
    strokes, new_strokes, error = (sum(column) / len(counts) for column in zip(*counts, strict=True))
    record: dict[str, Any] = {"strokes": round(strokes), "width": width, "height": height}
    record |= {"frames": len(counts), "fps": round(float(rate), 3), "shots": shots}
    record |= {"new_strokes": round(new_strokes)}
    return record | {"l1": round(error, 5)} if compare else record


def _painted_frames(
    painter: Painter, frames: Iterable[Frame]
) -> Iterator[tuple[Frame, Pixels, FramePainter]]:
    """Yield every frame with its painting, uint8 (H, W, 3), and what painted it."""
    made: FramePainter | None = None
    painting: Painting | None = None
    ground = painter.settings.ground
    for frame in frames:
        height, width = frame.photo.size
        if made is None:
            made = FramePainter(painter.settings_for(height, width), painter.brush, painter.predictor)
        if frame.photo.alpha is not None and ground is None:
            ground = frame.photo.mean_color()
        target = painter.target(frame.photo.over(ground or (0.0, 0.0, 0.0)), made.settings.levels)
        before, painting = painting, made.paint(target)
        if painting is not before:
            pixels = replace(painting, aspect=width / height).render(height, width).cpu().numpy()
        yield frame, pixels, made


def _at_rate(frames: Iterable[Frame], rate: Fraction, hold: Fraction) -> Iterator[Frame]:
    """Show, at even times, the frame that is shown then: frames are left out, or come more than once.

    hold: seconds for which the last frame is shown.
    """
    number, current = 0, None
    for frame in frames:
        while current is not None and number / rate < frame.time:
            yield replace(current, time=number / rate)
            number += 1
        current = frame
    while current is not None and number / rate < current.time + hold:
        yield replace(current, time=number / rate)
        number += 1


@dataclass(frozen=True)
class _Shown:
    """A painted frame, and what it was painted for."""

    painting: Painting
    born: Tensor  # (N,) int64, the frame that each stroke is of
    target: Tensor  # (3, h, w), what each place was last painted for
    changed_in: Tensor  # (h, w) int64, the frame in which


class FramePainter:
    """Paints frame after frame of one size; holds one painting and two small pictures.

    settings: for every frame; without a ground, each shot has the mean of its first frame.
    brush: on the device of the frames.
    predictor: as for `gtool.strokes.painting.paint`.
    """

    def __init__(self, settings: PaintSettings, brush: Brush, predictor: Predictor | None) -> None:
        self.settings = settings
        self.shots = 0  # begun
        self.strokes = self.new_strokes = 0  # in the last frame
        self._brush = brush
        self._predictor = predictor
        self._number = self._begun = 0  # of this frame and of the first of its shot
        self._shown: _Shown | None = None

    def paint(self, frame: Tensor) -> Painting:
        """Paint the next frame, (3, H, W) in [0, 1]; where nothing changed, the same painting is returned."""
        target = _reduce(frame, self.settings.levels)
        self._number += 1
        shown = self._shown
        changed = None if shown is None else _changed(target, shown.target)
        if shown is None or changed is None or changed.float().mean() > CUT:
            shown = self._begin(frame, target)
        elif changed.any():
            shown = self._continue(shown, frame, target, changed)
        else:
            self.new_strokes = 0
        self._shown = shown
        self.strokes = len(shown.painting)
        return shown.painting

    def _begin(self, frame: Tensor, target: Tensor) -> _Shown:
        painting = paint(frame, self.settings, self._brush, self._predictor)
        self.shots += 1
        self._begun = self._number
        self.new_strokes = len(painting)
        born = torch.full((len(painting),), self._number, device=frame.device)
        return _Shown(painting, born, target, torch.full_like(target[0], self._number, dtype=torch.long))

    def _continue(self, shown: _Shown, frame: Tensor, target: Tensor, changed: Tensor) -> _Shown:
        height, width = changed.shape
        changed_in = torch.where(changed, self._number, shown.changed_in)
        geometry = to_pixels(shown.painting.shape_params, max(height, width))
        stale = sample_under(geometry, changed_in[None])[0] > shown.born[:, None]  # (N, 25)
        goes = stale.float().mean(-1) > STALE
        # The underpainting keeps its places for the whole shot, so that no ground is laid bare; colours follow.
        under = math.prod(underpainting_cells(frame.shape[1], frame.shape[2], self.settings.longest))
        followed = goes[:under].nonzero().squeeze(1)
        painting, born = replace(shown.painting, colors=shown.painting.colors.clone()), shown.born.clone()
        painting.colors[followed] = sample_under(geometry[followed], target).mean(-1).T
        born[followed] = self._number
        goes[:under] = False
        # Where something moves, paint would pile up. Strokes of the first frame, far-reaching ones among them, stay.
        loose = born > self._begun
        loose[:under] = False
        goes, bared = self._uncover(geometry, goes, loose, (height, width))
        kept = painting[~goes]
        repaint = F.interpolate((changed | bared)[None, None].float(), frame.shape[1:])[0]
        settings = replace(self.settings, ground=painting.ground)
        made = paint(frame, settings, self._brush, self._predictor, kept=Kept(kept, repaint))
        place = _places(made.levels, kept.levels)
        # As they were to the last bit: pixels and shares of a side are not the same number twice.
        made.shape_params[place] = kept.shape_params
        born_now = torch.full_like(made.levels, self._number)
        born_now[place] = born[~goes]
        self.new_strokes = len(made) - len(kept)
        return _Shown(made, born_now, torch.where(changed, target, shown.target), changed_in)

    def _uncover(
        self, geometry: Tensor, goes: Tensor, loose: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Let hidden strokes (N, 5), in compared pixels, go too where they are loose: (N,) bool each.

        Returns:
            (N,) bool, what goes, and (h, w) bool, where it was visible.
        """
        height, width = size
        around = cells_of(geometry[goes], -(-height // CELL), -(-width // CELL), CELL)
        near = overlaps(geometry, around, CELL).nonzero().squeeze(1)
        share, place, stroke = visible_ink(self._brush, geometry[near], self.settings.opacity, size)
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
    return resample(frame[None], size, antialias=True)[0]


def _changed(target: Tensor, before: Tensor) -> Tensor:
    """Say where two small frames (3, h, w) differ by more than noise: (h, w) bool."""
    difference = F.avg_pool2d((target - before)[None], 3, 1, 1, count_include_pad=False)
    moved = (difference.abs().amax(1) > CHANGED).float()
    return F.max_pool2d(moved, 2 * AROUND + 1, 1, AROUND)[0] > 0


def _places(levels: Tensor, kept: Tensor) -> Tensor:
    """Where strokes that stayed are among all, given the levels (rising) of both: the first ones of each level."""
    first = torch.searchsorted(levels, kept)
    rank = torch.arange(len(kept), device=kept.device) - torch.searchsorted(kept, kept)
    return first + rank
