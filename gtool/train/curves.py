"""Line charts drawn with Pillow alone: panels above each other that share one horizontal axis.

Everything is drawn on a canvas of three times its size (gtool/io/text.py). Lengths are in pixels of the
finished picture.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from gtool.io.picture import save_png
from gtool.io.text import FAINT, SOFT, SUPERSAMPLING, TITLE, canvas, finish, width_of, write

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
Points = list[tuple[float, float]]

WIDTH, PANEL_HEIGHT = 960, 250
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 34, 26  # margins of a panel
FOOT = 30  # below the last panel, for the name of the axis
# Okabe and Ito (2008): apart from each other for every kind of colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def curves(path: Path, panels: Mapping[str, Series], *, x_label: str = "", log: Collection[str] = ()) -> None:
    """Draw panels of lines and write them as PNG.

    Args:
        path: the PNG file.
        panels: title -> {name of a line: (xs, ys)}; values that are not finite, or not positive in a panel of
            `log`, interrupt the line.
        x_label: what the horizontal axis counts.
        log: titles of the panels with a logarithmic vertical axis.

    Raises:
        CheckpointError: the file cannot be written.
    """
    height = len(panels) * PANEL_HEIGHT + FOOT
    drawn = canvas(WIDTH, height)
    x_axis = axis_of([x for series in panels.values() for xs, _ in series.values() for x in xs], steps=8)
    for number, (title, series) in enumerate(panels.items()):
        _Panel(drawn, number * PANEL_HEIGHT, x_axis, title in log).draw(title, series)
    write(ImageDraw.Draw(drawn), ((LEFT + WIDTH - RIGHT) / 2, height - FOOT / 2), x_label, "mm", colour=SOFT)
    save_png(path, finish(drawn))


@dataclass(frozen=True)
class Axis:
    """An interval of values, where to mark it, and the values as shares of it."""

    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool

    def share(self, value: float) -> float:
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def shows(self, value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not self.is_log)


def axis_of(values: Sequence[float], *, steps: int, is_log: bool = False) -> Axis:
    """Return the interval of the values that can be shown, with at most `steps` + 1 marks if linear."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not is_log)]
    low, high = (min(finite), max(finite)) if finite else (0.1, 1.0)
    if is_log:
        low, high = (low / 1.1, high * 1.1) if low == high else (low, high)
        return Axis(low, high, tuple(_log_ticks(low, high)), True)
    if low == high:
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    step = _round_step((high - low) / steps)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, tuple(number * step for number in range(first, last + 1)), False)


def _round_step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten, not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two values, and 2 and 5 times them where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > 4 else (1, 2, 5)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) >= 2 else [low, high]


class _Panel:
    """One chart on the canvas, `top` pixels below its upper edge."""

    def __init__(self, drawn: Image.Image, top: int, x_axis: Axis, is_log: bool) -> None:
        self.pen = ImageDraw.Draw(drawn)
        self.left, self.right = LEFT, WIDTH - RIGHT
        self.top, self.bottom = top + TOP, top + PANEL_HEIGHT - BOTTOM
        self.x_axis = x_axis
        self.is_log = is_log

    def draw(self, title: str, series: Series) -> None:
        values = [y for _, ys in series.values() for y in ys]
        self.y_axis = axis_of(values, steps=5, is_log=self.is_log)
        self._draw_frame()
        write(self.pen, (self.left, self.top - 18), title, "lm", size=TITLE)
        right = float(self.right)
        for number, (name, (xs, ys)) in reversed(list(enumerate(series.items()))):
            colour = COLOURS[number % len(COLOURS)]
            self._draw_line(xs, ys, colour)
            right = self._draw_legend(right, name, colour)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        """Return the point of a pair of values, leaving room between the extremes and the frame."""
        inset = 8
        across = self.left + inset + self.x_axis.share(x) * (self.right - self.left - 2 * inset)
        up = self.bottom - inset - self.y_axis.share(y) * (self.bottom - self.top - 2 * inset)
        return across, up

    def _draw_frame(self) -> None:
        for tick, label in zip(self.y_axis.ticks, tick_labels(self.y_axis), strict=True):
            _, up = self._place(self.x_axis.low, tick)
            self._line([(self.left, up), (self.right, up)], FAINT, 1)
            write(self.pen, (self.left - 8, up), label, "rm", colour=SOFT)
        for tick, label in zip(self.x_axis.ticks, tick_labels(self.x_axis), strict=True):
            across, _ = self._place(tick, self.y_axis.low)
            self._line([(across, self.bottom), (across, self.bottom + 4)], SOFT, 1)
            write(self.pen, (across, self.bottom + 14), label, "mm", colour=SOFT)
        self._line([(self.left, self.top), (self.left, self.bottom), (self.right, self.bottom)], SOFT, 1)

    def _draw_line(self, xs: Sequence[float], ys: Sequence[float], colour: str) -> None:
        run: Points = []
        for x, y in [*zip(xs, ys, strict=True), (math.nan, math.nan)]:
            if self.x_axis.shows(x) and self.y_axis.shows(y):
                run.append(self._place(x, y))
                continue
            if len(run) > 1:
                self._line(run, colour, 2)
            elif run:
                self._dot(run[0], colour)
            run = []

    def _draw_legend(self, right: float, name: str, colour: str) -> float:
        """Write a name with a piece of its line, ending at `right`; returns where the next one may end."""
        up = self.top - 18
        start = right - width_of(self.pen, name)
        write(self.pen, (start, up), name, "lm")
        self._line([(start - 26, up), (start - 6, up)], colour, 3)
        return start - 46

    def _line(self, points: Points, colour: str, width: int) -> None:
        scaled = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]
        self.pen.line(scaled, fill=colour, width=width * SUPERSAMPLING, joint="curve")

    def _dot(self, point: tuple[float, float], colour: str) -> None:
        x, y = point[0] * SUPERSAMPLING, point[1] * SUPERSAMPLING
        radius = 3 * SUPERSAMPLING
        self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def tick_labels(axis: Axis) -> list[str]:
    """Write the ticks of an axis with as many digits as tell them apart."""
    if axis.is_log or len(axis.ticks) < 2:
        return [f"{tick:.3g}" for tick in axis.ticks]
    step = axis.ticks[1] - axis.ticks[0]
    largest = max(abs(tick) for tick in axis.ticks)
    if largest >= 1e6 or step < 1e-4:
        return [f"{tick:.3g}" for tick in axis.ticks]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{tick + 0.0:.{digits}f}" for tick in axis.ticks]
