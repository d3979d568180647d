"""`gtool paint` with a clip: every frame painted from the one before, with the sound of the clip."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from gtool import console
from gtool.io.photo import Photo, fitting
from gtool.io.video import Frame, Survey, open_clip
from gtool.paint.film import write_film
from gtool.paint.outputs import Job, shown
from gtool.paint.painter import Studio
from gtool.paint.video_strokes import ClipPainter
from gtool.strokes.canvas import Painting

if TYPE_CHECKING:
    from gtool.io.photo import Pixels


def paint_clip(
    studio: Studio,
    job: Job,
    found: Survey,
    *,
    at_most: int,
    fps: float | None,
    compare: bool,
    place: str,
) -> dict[str, Any]:
    """Paint a clip and write it.

    Args:
        studio: how.
        job: from where to where.
        found: what a look through the clip found.
        at_most: pixels of the longer side.
        fps: frames a second; None keeps every frame with its own time.
        compare: also measure how near the frames come to those of the clip.
        place: what stands before the name where progress is shown.

    Returns:
        size, frames, frames a second, shots, strokes of a frame on average and how many of them are new; and l1.

    Raises:
        GToolError: the clip cannot be read or the film not be written.
    """
    rate = found.rate if fps is None else Fraction(fps).limit_denominator(1000)
    total = found.frames if fps is None else max(1, round(found.frames * rate / found.rate))
    width, height = fitting(found.width, found.height, at_most)
    counts = _Counts()
    began = time.perf_counter()
    with (
        open_clip(job.source) as clip,
        write_film(job.out, (height, width), rate, found.pixel_aspect) as film,
        console.progress("painting") as update,
    ):
        _say(job, found, (width, height), film.add_tracks(clip.audio))
        frames: Iterable[Frame] = clip.frames(at_most, film.copy)
        if fps is not None:
            frames = _at_rate(frames, rate, 1 / found.rate)
        painter = _Painter(studio)
        for frame in frames:
            speed = counts.frames / (time.perf_counter() - began)
            update(counts.frames, total, f"{place}{shown(job.source)}, {speed:.2f} frames/s")
            pixels = painter.paint(frame.photo)
            film.add(pixels, frame.time)
            counts.add(painter, frame.photo.pixels if compare else pixels, pixels)
    return {"height": height, "width": width} | counts.summary(float(rate), painter.shots, compare)


def _say(job: Job, found: Survey, size: tuple[int, int], dumb: list[str]) -> None:
    """Tell what becomes of the clip that its user may not expect."""
    name = shown(job.source)
    for note in found.notes:
        console.notice(f"{name}: {note}")
    if size != (found.width, found.height):
        made = f"{found.width}x{found.height} is painted at {size[0]}x{size[1]}"
        console.notice(f"{name}: {made}; --max-side {max(found.width, found.height)} keeps it")
    if dumb:
        console.notice(f"{name}: {job.out.suffix} holds no {', '.join(dumb)} sound, which is left out")


class _Painter:
    """Frames in, painted pixels out."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._engine: ClipPainter | None = None
        self._ground: tuple[float, float, float] | None = studio.style.ground
        self._painting: Painting | None = None
        self._pixels: Pixels | None = None
        self.strokes = self.new_strokes = self.shots = 0

    def paint(self, photo: Photo) -> Pixels:
        """Paint the next frame: uint8 (H, W, 3)."""
        height, width = photo.size
        if self._engine is None:
            plan = self._studio.plan(height, width)
            self._engine = ClipPainter(plan, self._studio.brush, self._studio.predict)
        if photo.alpha is not None and self._ground is None:
            self._ground = photo.mean_color()
        seen = self._studio.see(photo.over(self._ground or (0.0, 0.0, 0.0)), self._engine.plan)
        painting = self._engine.paint(seen)
        if self._pixels is None or painting is not self._painting:
            whole = replace(painting, aspect=width / height)
            self._pixels = np.asarray(whole.render(height, width).cpu().numpy())
            self._painting = painting
        self.strokes, self.new_strokes = len(painting), self._engine.new_strokes
        self.shots = self._engine.shots
        return self._pixels


class _Counts:
    """Sums over the frames of a clip."""

    def __init__(self) -> None:
        self.frames = self._strokes = self._new = 0
        self._difference = 0.0

    def add(self, painter: _Painter, wanted: Pixels, painted: Pixels) -> None:
        """Count a frame."""
        self.frames += 1
        self._strokes += painter.strokes
        self._new += painter.new_strokes
        if wanted is not painted:
            self._difference += float(np.abs(wanted.astype(np.int16) - painted).mean()) / 255

    def summary(self, rate: float, shots: int, compare: bool) -> dict[str, Any]:
        """Return what is told of a clip."""
        means = {
            "strokes": round(self._strokes / self.frames),
            "new_strokes": round(self._new / self.frames),
        }
        difference = {"l1": round(self._difference / self.frames, 5)} if compare else {}
        return {"frames": self.frames, "fps": round(rate, 3), "shots": shots} | means | difference


def _at_rate(frames: Iterable[Frame], rate: Fraction, hold: Fraction) -> Iterator[Frame]:
    """Show, at even times, the frame that is shown then: frames are left out, or come more than once.

    hold: seconds for which the last frame is shown.
    """
    number, shown_now = 0, None
    for frame in frames:
        while shown_now is not None and number / rate < frame.time:
            yield replace(shown_now, time=number / rate)
            number += 1
        shown_now = frame
    while shown_now is not None and number / rate < shown_now.time + hold:
        yield replace(shown_now, time=number / rate)
        number += 1
