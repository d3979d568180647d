"""Painting the frames of a video so that strokes follow what they show, and what is still stays still, bit for bit.

Every frame is compared with what each place was last painted for, so that slow drift is noticed too and the noise
of a codec is not. Strokes move with the picture, by the optical flow at their centres: all of them where the camera
moves, else those of what moves. Strokes that leave the frame, or most of whose ink lies where something else has
changed since they were painted, go. The others stay, in their order and under the same finer ones, and the places
that changed, came into view or differ from the frame more than they did are painted anew among them, pass after pass.
Where most of a frame has changed, as at a cut, a new painting begins.

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
from gtool.paint.motion import displacement, flow_at, optical_flow, outside, warp
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
PANNED = 0.7  # share of the outlines that a flow explains better than standing still, where the camera moves
LOST = 1.0  # compared pixels between a stroke and where the flow says that its new place was
PATIENCE = 0.01  # that is allowed more with every time that a place is painted over
FRESH = 0.1  # share of a new frame in what moving places are compared with: they blur as they are resampled


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
    allowed: Tensor  # (h, w), difference from the frame beyond which a place is painted over


@dataclass(frozen=True)
class _Followed:
    """A painted frame that moved with the picture."""

    shown: _Shown
    changed: Tensor  # (h, w) bool, where the picture is no longer as it was
    lost: Tensor  # (N,) bool, strokes that did not come with it


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
        if shown is not None and not _changed(target, shown.target).any():
            self.new_strokes = 0
        else:
            # The underpainting keeps its places for the whole shot, so that no ground is laid bare; colours follow.
            _, height, width = frame.shape
            under = math.prod(underpainting_cells(height, width, self.settings.longest))
            followed = None if shown is None else _follow(shown, target, under)
            if followed is None or followed.changed.float().mean() > CUT:
                shown = self._begin(frame, target)
            else:
                shown = self._continue(followed, frame, target, under)
        self._shown = shown
        self.strokes = len(shown.painting)
        return shown.painting

    def _begin(self, frame: Tensor, target: Tensor) -> _Shown:
        painting = paint(frame, self.settings, self._brush, self._predictor)
        self.shots += 1
        self._begun = self._number
        self.new_strokes = len(painting)
        born = torch.full((len(painting),), self._number, device=frame.device)
        changed_in = torch.full_like(target[0], self._number, dtype=torch.long)
        return _Shown(painting, born, target, changed_in, _error(painting, target) + CHANGED)

    def _continue(self, followed: _Followed, frame: Tensor, target: Tensor, under: int) -> _Shown:
        shown, changed = followed.shown, followed.changed
        height, width = changed.shape
        changed_in = torch.where(changed, self._number, shown.changed_in)
        geometry = to_pixels(shown.painting.shape_params, max(height, width))
        stale = sample_under(geometry, changed_in[None])[0] > shown.born[:, None]  # (N, 25)
        goes = (stale.float().mean(-1) > STALE) | followed.lost
        recolored = goes[:under].nonzero().squeeze(1)
        painting, born = replace(shown.painting, colors=shown.painting.colors.clone()), shown.born.clone()
        painting.colors[recolored] = sample_under(geometry[recolored], target).mean(-1).T
        born[recolored] = self._number
        goes[:under] = False
        # Where something moves, paint would pile up. Strokes of the first frame, far-reaching ones among them, stay.
        loose = born > self._begun
        loose[:under] = False
        goes, bared = self._uncover(geometry, goes, loose, (height, width))
        kept = painting[~goes]
        poor = _error(replace(kept, aspect=width / height), target) > shown.allowed
        allowed = torch.where(changed, shown.allowed.double().mean().float(), shown.allowed) + PATIENCE * poor
        repaint = F.interpolate((changed | bared | poor)[None, None].float(), frame.shape[1:])[0]
        settings = replace(self.settings, ground=painting.ground)
        made = paint(frame, settings, self._brush, self._predictor, kept=Kept(kept, repaint))
        place = _places(made.levels, kept.levels)
        # As they were to the last bit: pixels and shares of a side are not the same number twice.
        made.shape_params[place] = kept.shape_params
        born_now = torch.full_like(made.levels, self._number)
        born_now[place] = born[~goes]
        self.new_strokes = len(made) - len(kept)
        return _Shown(made, born_now, torch.where(changed, target, shown.target), changed_in, allowed)

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


def _follow(shown: _Shown, target: Tensor, under: int) -> _Followed:
    """Move the strokes and maps of a painted frame along with the picture, to a new frame (3, h, w).

    under: how many of its strokes are the underpainting.
    """
    flow = optical_flow(shown.target, target)
    moved = warp(shown.target, flow)
    if not _is_panned(target, shown.target, moved):  # what is still stays where it is
        flow = flow * (_changed(target, shown.target) & ~_changed(target, moved))
        moved = torch.where((flow == 0).all(0), shown.target, warp(shown.target, flow))
    painting, lost = _move(shown.painting, flow, under)
    changed_in, allowed = (
        warp(x[None].float(), flow, "nearest")[0].to(x) for x in (shown.changed_in, shown.allowed)
    )
    fresh = torch.where((flow == 0).all(0), moved, moved.lerp(target, FRESH))
    followed = replace(shown, painting=painting, target=fresh, changed_in=changed_in, allowed=allowed)
    return _Followed(followed, _changed(target, moved) | outside(flow), lost)


def _move(painting: Painting, flow: Tensor, under: int) -> tuple[Painting, Tensor]:
    """Move strokes along a flow (2, h, w), those of the underpainting apart: it keeps its places.

    Returns:
        the painting, and (N,) bool, which strokes have left the frame, went behind something, or lie, as part of the
        underpainting, where another part of the picture is now.
    """
    height, width = flow.shape[1:]
    geometry = to_pixels(painting.shape_params, max(height, width))
    away = displacement(flow, geometry[:, :2])  # (N, 2)
    has_moved = (away != 0).any(-1)
    place = geometry[:, :2] + away
    lost = (away + flow_at(flow, place)).norm(dim=-1) > LOST
    geometry = torch.cat([place, geometry[:, 2:]], dim=1)
    lost |= has_moved & ~overlaps(geometry, torch.ones_like(flow[0]), 1.0)
    lost[:under], away[:under] = has_moved[:under], 0
    shape = painting.shape_params.clone()
    shape[:, :2] += away / max(height, width)
    return replace(painting, shape_params=shape), lost


def _is_panned(target: Tensor, before: Tensor, moved: Tensor) -> bool:
    """Say whether the whole picture moves: most of what has an outline (3, h, w) is where its flow says."""
    down, right = torch.gradient(target, dim=(1, 2))
    outline = (down.square() + right.square()).sum(0).sqrt()
    better = (moved - target).abs().sum(0) < (before - target).abs().sum(0)
    return bool((outline * better).sum() > PANNED * outline.sum())


def _reduce(frame: Tensor, levels: int) -> Tensor:
    """A frame (3, H, W) at the size at which it is compared, 16 pixels to a patch of the last level: (3, h, w)."""
    _, height, width = frame.shape
    patch = math.ceil(max(height, width) / 2**levels)
    scale = min(0.5, SELECTION_SIZE / patch)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return resample(frame[None], size, antialias=True)[0]


def _error(painting: Painting, target: Tensor) -> Tensor:
    """Difference of a painting from a small frame (3, h, w), over 3 x 3 pixels: (h, w)."""
    painted = painting.render(*target.shape[1:]).permute(2, 0, 1).float() / 255
    return F.avg_pool2d((painted - target).abs().mean(0)[None], 3, 1, 1, count_include_pad=False)[0]


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
