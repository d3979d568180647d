"""Curves of a run drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from gtool.errors import CheckpointError
from gtool.io.files import atomic_write

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
# Okabe and Ito (2008): distinguishable with every kind of colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def save_curves(path: Path, panels: Mapping[str, Series], *, x_label: str, log: Collection[str] = ()) -> None:
    """Draw panels of lines that share one horizontal axis, and write them as PNG.

    Args:
        path: the PNG file.
        panels: title -> {name of a line: (xs, ys)}; values that are not finite interrupt a line.
        x_label: what the horizontal axis counts.
        log: titles of the panels with a logarithmic vertical axis.

    Raises:
        CheckpointError: the file cannot be written.
    """
    # Takes half a second to import, and most of a run needs none.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 2.5 * len(panels) + 0.3), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), sharex=True, squeeze=False)
    for axes, (title, series) in zip(grid[:, 0], panels.items(), strict=True):
        axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
        axes.set_prop_cycle(color=COLOURS)
        for name, (xs, ys) in series.items():
            axes.plot(xs, ys, label=name, marker="." if len(xs) == 1 else "")
        if title in log:
            axes.set_yscale("log", nonpositive="mask")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=len(series), frameon=False, fontsize="small"
        )
    grid[-1, 0].set_xlabel(x_label)
    try:
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png")
    except OSError as bad:
        raise CheckpointError(f"{path}: cannot be written: {bad.strerror or bad}") from None
