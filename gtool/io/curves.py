"""Curves: panels of lines as PNG files."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from gtool.io.files import atomic_write

Line = tuple[Sequence[float], Sequence[float]]  # xs and ys
# Okabe and Ito (2008): distinguishable with every kind of colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
FEW_POINTS = 30  # so many are drawn as points too: a line of two says little


def save_curves(
    path: Path, panels: Mapping[str, Mapping[str, Line]], log: Collection[str] = (), axis: str = "kimg"
) -> None:
    """Draw panels of lines over one axis, and write them as PNG; CheckpointError where the file cannot be written.

    panels: title -> {name of a line: (xs, ys)}; values that are not finite interrupt a line.
    log: titles of the panels with a logarithmic vertical axis.
    """
    # Takes half a second to import, and most of a run needs none.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    height = 2.5 * len(panels) + 0.3  # inches
    figure = Figure(figsize=(9.6, height), dpi=100)
    FigureCanvasAgg(figure)
    # Margins of our own: a layout found by matplotlib takes five times as long as the drawing.
    margins = {"left": 0.09, "right": 0.98, "top": 1 - 0.4 / height, "bottom": 0.5 / height, "hspace": 0.3}
    grid = figure.subplots(len(panels), sharex=True, squeeze=False, gridspec_kw=margins)
    for axes, (title, series) in zip(grid[:, 0], panels.items(), strict=True):
        axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
        axes.set_prop_cycle(color=COLOURS)
        for name, (xs, ys) in series.items():
            axes.plot(xs, ys, label=name, marker="." if len(xs) <= FEW_POINTS else "")
        if title in log:
            axes.set_yscale("log", nonpositive="mask")
            axes.yaxis.set_major_formatter("{x:g}")  # no powers of ten
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=len(series), frameon=False, fontsize="small"
        )
    grid[-1, 0].set_xlabel(axis)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
