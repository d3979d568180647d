"""Small charts as SVG for pages: lines and clouds of points, in colours that the page's style sheet sets.

Elements have classes and no colours of their own, so that a page can be light or dark. Lengths are in CSS pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from gtool.eval.report.axis import Axis, axis_of, tick_labels

Points = NDArray[np.float64]  # (N, 2)

LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 34


def line_chart(
    line: Sequence[tuple[float, float]], *, name: str, x_label: str, limits: Sequence[tuple[str, float]] = ()
) -> str:
    """Draw one line whose last point is the present; `limits` are dashed lines across, with their names."""
    width, height = 340, 190
    values = [y for _, y in line] + [value for _, value in limits if math.isfinite(value)]
    x_axis, y_axis = axis_of([x for x, _ in line], steps=5), axis_of(values, steps=4)
    frame = _Frame(x_axis, y_axis, width, height)
    places = [frame.place(x, y) for x, y in line]
    parts = [frame.draw(x_label, "")]
    for text, value in limits:
        _, y = frame.place(x_axis.low, value)
        parts.append(f'<path class="limit" d="M{LEFT} {y:.1f}H{width - RIGHT}"/>')
        parts.append(
            f'<text class="limit" x="{width - RIGHT}" y="{y - 5:.1f}" text-anchor="end">{escape(text)}</text>'
        )
    parts.append(f'<path class="line" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in places)}"/>')
    for number, (x, y) in enumerate(places):
        kind, radius = ("now", 4.5) if number == len(places) - 1 else ("then", 2.5)
        tip = f"{x_label} {line[number][0]:g}: {line[number][1]:.5g}"
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{tip}</title></circle>'
        )
    return _svg(width, height, f"{name} over {x_label}", parts)


def cloud(groups: Sequence[tuple[str, Points]], *, name: str, labels: tuple[str, str]) -> str:
    """Draw groups of points (N, 2), the first undermost; the class of each is its number."""
    width, height = 1032, 480
    everything = np.concatenate([points for _, points in groups])
    # A few points far out would press the others together: the frame ends beyond 99 % of them.
    low, high = np.percentile(everything, [0.5, 99.5], axis=0)
    margin = 0.08 * (high - low)
    axes = [axis_of([a, b], steps=6) for a, b in zip(low - margin, high + margin, strict=True)]
    frame = _Frame(axes[0], axes[1], width, height)
    parts = [frame.draw(*labels)]
    for number, (_, points) in enumerate(groups):
        inside = np.clip(points, low - margin, high + margin)
        dots = (frame.place(x, y) for x, y in inside.tolist())
        marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in dots)
        parts.append(f'<g class="group{number}">{marks}</g>')
    return _svg(width, height, name, parts)


class _Frame:
    """The area of a chart between its axes."""

    def __init__(self, x_axis: Axis, y_axis: Axis, width: int, height: int) -> None:
        self.x_axis, self.y_axis = x_axis, y_axis
        self.right, self.bottom = width - RIGHT, height - BOTTOM
        self.middle = (LEFT + self.right) / 2

    def place(self, x: float, y: float) -> tuple[float, float]:
        inset = 10
        across = LEFT + inset + self.x_axis.share(x) * (self.right - LEFT - 2 * inset)
        up = self.bottom - inset - self.y_axis.share(y) * (self.bottom - TOP - 2 * inset)
        return across, up

    def draw(self, x_label: str, y_label: str) -> str:
        parts = []
        for tick, text in zip(self.y_axis.ticks, tick_labels(self.y_axis), strict=True):
            _, y = self.place(self.x_axis.low, tick)
            parts.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{self.right}"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        for tick, text in zip(self.x_axis.ticks, tick_labels(self.x_axis), strict=True):
            x, _ = self.place(tick, self.y_axis.low)
            parts.append(f'<text x="{x:.1f}" y="{self.bottom + 14}" text-anchor="middle">{text}</text>')
        parts.append(f'<path class="axis" d="M{LEFT} {self.bottom}H{self.right}"/>')
        place = f'x="{self.middle:.0f}" y="{self.bottom + 29}" text-anchor="middle"'
        parts.append(f'<text class="name" {place}>{escape(x_label)}</text>')
        if y_label:
            middle = (TOP + self.bottom) / 2
            turn = f'transform="translate(13 {middle:.0f}) rotate(-90)"'
            parts.append(f'<text class="name" {turn} text-anchor="middle">{escape(y_label)}</text>')
        return "".join(parts)


def _svg(width: int, height: int, name: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(name)}">'
        f"{''.join(parts)}</svg>"
    )
