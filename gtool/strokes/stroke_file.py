"""Stroke files: a painting as JSON text, from which it can be rendered again at any size.

    {"format": "gtool-strokes", "version": 1,
     "aspect": 1.5, "ground": [0.42, 0.4, 0.37], "brush": "flat", "opacity": 1.0,
     "columns": ["x", "y", "width", "height", "theta", "red", "green", "blue", "level"],
     "strokes": [
    [0.52,0.31,0.4,0.2,0.25,0.8,0.1,0.1,0],
    [0.1,0.6,0.05,0.2,1.5,0.2,0.3,0.9,1]]}

UTF-8. All keys have to be there; others are ignored. Strokes are painted in the order of their rows onto a canvas
of the colour `ground`.

aspect            width over height of the picture, above 0
ground            red, green, blue in [0, 1] (sRGB as in image files; so are the colours of strokes)
brush             name of the brush: flat, round or dry, or that of a folder of brush pictures
opacity           in [0, 1], of every stroke
x, y              centre of the stroke in shares of the picture's LONGER side; x to the right, y down, both from
                  the upper left corner; in [-10, 10]
width, height     sides of the rectangle that holds the mark, in the same unit; in [0, 10]
theta             turn of that rectangle, clockwise as seen, in units of pi: 0.5 is a quarter turn
red, green, blue  in [0, 1]
level             whole number, 0 the coarsest; says when in the making the stroke came, not how it looks

A place (X, Y) of the picture lies in the stroke at u = 1/2 + (c (X - x) + s (Y - y)) / width along its width and
v = 1/2 + (c (Y - y) - s (X - x)) / height along its height, with s, c the sine and cosine of pi theta; the mark
covers most of the square 0 <= u, v <= 1. Bristles run along the longer of the two sides.

Numbers are the shortest that give back the same 32-bit floats, so the same gtool renders the same pixels from them.
"""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gtool.errors import DataError
from gtool.io.files import atomic_write
from gtool.strokes.brush import Brush, load_brush
from gtool.strokes.canvas import Painting
from gtool.strokes.settings import BRUSHES

FORMAT = "gtool-strokes"
VERSION = 1
COLUMNS = ("x", "y", "width", "height", "theta", "red", "green", "blue", "level")
KEYS = ("format", "version", "aspect", "ground", "brush", "opacity", "columns", "strokes")
MOST_STROKES = 2_000_000
MOST_BYTES = 400 * 2**20  # twice what so many strokes take
LONGEST_NAME = 1000  # of a brush
FARTHEST = 10.0  # longer sides that a stroke may lie outside the picture, or be long
MOST_TURNS = 1e6
WIDEST = 1e6  # aspect
DEEPEST = 1000  # level
ROUNDING = 1e-5  # by which a mean of colours may leave [0, 1]

_LOWEST = np.array([-FARTHEST, -FARTHEST, 0, 0, -MOST_TURNS, *3 * [-ROUNDING], 0])
_HIGHEST = np.array([FARTHEST, FARTHEST, FARTHEST, FARTHEST, MOST_TURNS, *3 * [1 + ROUNDING], DEEPEST])

Table = NDArray[np.float64]  # (N, 9), columns as in COLUMNS


def save_strokes(path: Path, painting: Painting) -> None:
    """Write a painting, whole or not at all.

    Raises:
        DataError: the painting holds what `load_strokes` would refuse.
        CheckpointError: the file cannot be written.
    """
    floats = torch.cat([painting.shape_params, painting.colors], dim=1).float().cpu().numpy()
    levels = painting.levels.cpu().numpy()
    _check_count(path, len(floats))
    _check_table(path, np.concatenate([floats.astype(np.float64), levels[:, None]], axis=1))
    header = {
        "format": FORMAT,
        "version": VERSION,
        "aspect": painting.aspect,
        "ground": list(painting.ground),
        "brush": painting.brush.name,
        "opacity": painting.opacity,
        "columns": list(COLUMNS),
    }
    _check_header(path, header | {"strokes": []})
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(header)[:-1] + ', "strokes": [')
        for start in range(0, len(floats), 2**14):
            part = slice(start, start + 2**14)
            numbers = floats[part].astype("U16")  # numpy writes the shortest that reads back
            rows = np.column_stack([numbers, levels[part].astype("U16")]).tolist()
            file.write(("," if start else "") + ",".join(f"\n[{','.join(row)}]" for row in rows))
        file.write("]}\n")


def load_strokes(path: Path, brush: Brush | None = None) -> Painting:
    """Read a painting, its strokes on the CPU.

    Args:
        path: of the file.
        brush: to paint with; None for the built-in one that the file names.

    Raises:
        DataError: missing, no stroke file, of another version, damaged, or out of range (names the stroke, from 1);
            or painted with a brush that is not built in.
    """
    document = _read(path)
    _check_header(path, document)
    table = _table(path, document["strokes"])
    _check_table(path, table)
    floats = torch.from_numpy(table.astype(np.float32))
    red, green, blue = (float(value) for value in document["ground"])
    if brush is None and document["brush"] not in BRUSHES:
        raise DataError(f"{path}: painted with the brush `{document['brush']}`; name its folder with --brush")
    return Painting(
        aspect=float(document["aspect"]),
        shape_params=floats[:, :5].contiguous(),
        colors=floats[:, 5:8].contiguous(),
        levels=torch.from_numpy(table[:, 8].astype(np.int64)),
        ground=(red, green, blue),
        brush=brush or load_brush(document["brush"]),
        opacity=float(document["opacity"]),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; name a stroke file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as bad:
        raise DataError(f"{path}: cannot be read: {getattr(bad, 'strerror', None) or bad}") from None
    if len(data) > MOST_BYTES:
        raise DataError(f"{path}: larger than {MOST_BYTES >> 20} MB, the most a stroke file may have")
    # Counted before they become objects, which are a hundred times larger.
    if data.count(b"[") > MOST_STROKES + 100 or data.count(b",") > len(COLUMNS) * MOST_STROKES + 10_000:
        raise DataError(f"{path}: more than {MOST_STROKES:,} strokes")
    if data.count(b"{") > 1000:
        raise DataError(f"{path}: not a stroke file: strokes are lists of numbers")
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as bad:
        reason = "nested too deep" if isinstance(bad, RecursionError) else _first_line(bad)
        raise DataError(f"{path}: not a stroke file: no JSON: {reason}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f'{path}: not a stroke file: its "format" is not "{FORMAT}"')
    return document


def _first_line(error: ValueError) -> str:
    return "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error).splitlines()[0]


def _check_header(path: Path, document: dict[str, Any]) -> None:
    version = document.get("version", VERSION)
    if type(version) is not int or version != VERSION:
        found = json.dumps(version)[:40]
        raise DataError(f"{path}: stroke file of version {found}; this gtool reads version {VERSION}")
    missing = [key for key in KEYS if key not in document]
    if missing:
        raise DataError(f'{path}: damaged stroke file: no "{missing[0]}" in it')
    ground, brush = document["ground"], document["brush"]
    wrong = {
        "aspect": not _is_within(document["aspect"], 1 / WIDEST, WIDEST),
        "ground": not (
            isinstance(ground, list)
            and len(ground) == 3
            and all(_is_within(x, -ROUNDING, 1 + ROUNDING) for x in ground)
        ),
        "brush": not (isinstance(brush, str) and 0 < len(brush) <= LONGEST_NAME),
        "opacity": not _is_within(document["opacity"], 0, 1),
        "columns": document["columns"] != list(COLUMNS),
        "strokes": not isinstance(document["strokes"], list),
    }
    wants = {
        "aspect": "a number above 0",
        "ground": "three numbers in [0, 1]",
        "brush": "a name",
        "opacity": "a number in [0, 1]",
        "columns": json.dumps(COLUMNS),
        "strokes": "a list",
    }
    for key, is_wrong in wrong.items():
        if is_wrong:
            raise DataError(f'{path}: damaged stroke file: "{key}" must be {wants[key]}')


def _is_within(value: Any, low: float, high: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and low <= value <= high  # no number that is not finite


def _check_count(path: Path, count: int) -> None:
    if count > MOST_STROKES:
        raise DataError(f"{path}: {count:,} strokes; at most {MOST_STROKES:,} fit into a stroke file")


def _table(path: Path, rows: list[Any]) -> Table:
    """Turn JSON rows into numbers (N, 9); types are looked at in C, in Python only to name the bad stroke."""
    _check_count(path, len(rows))
    if not set(map(type, rows)) <= {list}:
        number = next(number for number, row in enumerate(rows) if type(row) is not list)
        raise _bad_stroke(path, number, "is not a list")
    if not set(map(len, rows)) <= {len(COLUMNS)}:
        number = next(number for number, row in enumerate(rows) if len(row) != len(COLUMNS))
        raise _bad_stroke(path, number, f"has {len(rows[number])} numbers, not {len(COLUMNS)}")
    if not set(map(type, chain.from_iterable(rows))) <= {int, float}:
        number = next(number for number, row in enumerate(rows) if not set(map(type, row)) <= {int, float})
        name = next(
            name for name, x in zip(COLUMNS, rows[number], strict=True) if type(x) not in (int, float)
        )
        raise _bad_stroke(path, number, f"{name} is not a number")
    try:
        flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * len(COLUMNS))
    except OverflowError:
        number = next(number for number, row in enumerate(rows) if any(abs(x) > 1e300 for x in row))
        raise _bad_stroke(path, number, "has a number out of range") from None
    return flat.reshape(-1, len(COLUMNS))


def _check_table(path: Path, table: Table) -> None:
    is_bad = ~((table >= _LOWEST) & (table <= _HIGHEST))  # also what is not a number
    is_bad[:, -1] |= table[:, -1] != np.floor(table[:, -1])
    if not is_bad.any():
        return
    number, column = (int(x) for x in np.argwhere(is_bad)[0])
    value, name = table[number, column], COLUMNS[column]
    if not math.isfinite(value):
        raise _bad_stroke(path, number, f"{name} is not a finite number")
    if name == "level":
        raise _bad_stroke(path, number, f"level {value:g} is not a whole number in [0, {DEEPEST}]")
    low, high = (round(float(bounds[column])) for bounds in (_LOWEST, _HIGHEST))
    raise _bad_stroke(path, number, f"{name} {value:g} is not in [{low}, {high}]")


def _bad_stroke(path: Path, number: int, reason: str) -> DataError:
    return DataError(f"{path}: damaged stroke file: stroke {number + 1}: {reason}")
