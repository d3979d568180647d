"""Sheets of pictures that are drawn beside numbers, and where they are kept."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path

import numpy as np
from PIL import Image

from gtool import __version__
from gtool.io.pictures import Column, Pixels, Row, fit, heat, image_cell, save_png, sheet


def save_differences(
    images: Mapping[str, Sequence[Pixels]],
    names: Sequence[str],
    title: str,
    path: Path,
    facts: Mapping[str, str],
) -> Path:
    """Write a sheet of two sets of images uint8 (3, H, W), by the names of their rows, and of their differences."""
    one, other = images.values()
    cell = image_cell(max(image.shape[-1] for image in one), len(one))
    changes = [np.abs(a.astype(np.float32) - b).mean(axis=0) for a, b in zip(one, other, strict=True)]
    largest = max(1.0, *(float(change.max()) for change in changes))
    rows = [Row(label, [fit(image, cell) for image in row]) for label, row in images.items()]
    rows.append(Row("difference", [fit(heat(change, largest), cell) for change in changes]))
    heads, note = [Column(name) for name in names], f"black 0, white {largest:.0f} of 255"
    picture = sheet(rows, heads, cell, title, note)
    return save_sheet(picture, path, facts)


def sheet_path(weights: Path, name: str) -> Path:
    """Return where a sheet of weights is kept: in the samples of the run that they lie in, or in the current folder."""
    path = Path(f"{name}-{weights.stem.removeprefix('weights-')}.png")
    return weights.parent / "samples" / path if (weights.parent / "recipe.toml").is_file() else path


def sheet_here(name: str) -> Path:
    """Return where a sheet of two folders goes: NAME.png in the current folder, which may be an earlier sheet.

    A file of that name that gtool did not write is left alone: then it is NAME-2.png, and so on.
    """
    names = chain([f"{name}.png"], (f"{name}-{number}.png" for number in count(2)))
    return next(path for path in map(Path, names) if not path.exists() or _is_sheet(path))


def _is_sheet(path: Path) -> bool:
    with suppress(OSError, ValueError, SyntaxError), Image.open(path) as picture:
        return str(picture.info.get("Software", "")).startswith("gtool ")
    return False


def save_sheet(picture: Pixels, path: Path, facts: Mapping[str, str] | None = None) -> Path:
    """Write a sheet with facts of where it comes from; returns its path."""
    save_png(path, picture, {"Software": f"gtool {__version__}", **(facts or {})})
    return path
