"""Sheets of pictures that are drawn beside numbers, and where they are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gtool import __version__
from gtool.io.pictures import Pixels, Row, fit, heat, save_png


def difference_rows(images: Mapping[str, Sequence[Pixels]], cell: int) -> tuple[list[Row], str]:
    """Return rows of two sets of images uint8 (3, H, W) and of their differences, and a note on the scale.

    images: the label of a row -> its images; two rows.
    """
    one, other = images.values()
    changes = [
        np.abs(a.astype(np.float32) - b).mean(axis=0) for a, b in zip(one, other, strict=True)
    ]  # (H, W)
    largest = max(1.0, *(float(change.max()) for change in changes))
    rows = [Row(label, [fit(image, cell) for image in row]) for label, row in images.items()]
    rows.append(Row("difference", [fit(heat(change, largest), cell) for change in changes]))
    return rows, f"black 0, white {largest:.0f} of 255"


def save_sheet(
    picture: Pixels, weights: Path | None, name: str, facts: Mapping[str, str] | None = None
) -> Path:
    """Write a sheet into the samples of the run that weights lie in, or into the current folder; returns its path.

    name: of the file; for weights without suffix, which their number and `.png` complete.
    """
    path = Path(name)
    if weights is not None:
        path = Path(f"{name}-{weights.stem.removeprefix('weights-')}.png")
        if (weights.parent / "recipe.toml").is_file():
            path = weights.parent / "samples" / path
    save_png(path, picture, {"Software": f"gtool {__version__}", **(facts or {})})
    return path
