"""Charts of a page of results as inline SVG, drawn by matplotlib: a score over time, and clouds of points.

They have the colours of the page's style sheet, so they follow the reader's choice of light or dark.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Axes = Any  # matplotlib's
Points = NDArray[np.float64]  # (N, 2)

SOFT, RULE, LIMIT = "#5c6670", "#e2e6ea", "#b4501b"
REAL, GENERATED = "#d98200", "#0072b2"
# What matplotlib draws with -> what the style sheet calls it.
VARIABLES = {SOFT: "--soft", RULE: "--rule", LIMIT: "--limit", REAL: "--real", GENERATED: "--made"}
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text, in the reader's own font
    "svg.hashsalt": "gtool",  # equal charts are equal files
    "font.size": 9,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "axes.grid.axis": "y",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
}


def line_chart(
    line: Sequence[tuple[float, float]], x_label: str, limits: Sequence[tuple[str, float]] = ()
) -> str:
    """Draw the points (x, y) of a score, the last of which is the present; `limits` are named dashed lines."""
    x, y = zip(*line, strict=True)

    def draw(axes: Axes) -> None:
        axes.plot(x, y, "-o", color=GENERATED, markersize=4, clip_on=False)
        axes.plot(x[-1:], y[-1:], "o", color=GENERATED, markersize=8, clip_on=False)
        for name, value in limits:
            if math.isfinite(value):
                axes.axhline(value, color=LIMIT, linestyle="--", linewidth=1, clip_on=False)
                place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
                axes.annotate(name, (1, value), (0, 3), **place, ha="right", color=LIMIT)
        axes.set_xlabel(x_label)
        axes.locator_params(axis="x", nbins=5, integer=all(float(one).is_integer() for one in x))

    return _svg(3.8, 2.1, draw)


def cloud(real: Points, generated: Points, labels: tuple[str, str]) -> str:
    """Draw two clouds of points (N, 2), the real ones undermost; `labels` are of the axes."""
    # A few points far out would press the others together: the frame ends beyond 99 % of them.
    low, high = np.percentile(np.concatenate([real, generated]), [0.5, 99.5], axis=0)
    margin = 0.08 * (high - low)

    def draw(axes: Axes) -> None:
        for points, colour in ((real, REAL), (generated, GENERATED)):
            inside = np.clip(points, low - margin, high + margin)
            look = {"color": colour, "alpha": 0.55, "markersize": 5, "markeredgewidth": 0, "clip_on": False}
            axes.plot(*inside.T, "o", **look)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])

    return _svg(10.4, 4.8, draw)


def _svg(width: float, height: float, draw: Callable[[Axes], None]) -> str:
    """Return a chart of so many inches as inline SVG."""
    import matplotlib  # a third of a second, and few results are written as pages
    from matplotlib.figure import Figure

    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<svg") :].replace("<svg", '<svg class="chart"', 1)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text
