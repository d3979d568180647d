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
brush             name of the brush: flat, round, dry, marker, wash or chalk, or that of a folder of brush pictures
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
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gtool.errors import DataError, printable
from gtool.io.files import atomic_write
from gtool.strokes.brush import MARKS, Brush, load_brush
from gtool.strokes.canvas import Painting
from gtool.strokes.settings import BRUSHES

FORMAT = "gtool-strokes"
VERSION = 1
COLUMNS = ("x", "y", "width", "height", "theta", "red", "green", "blue", "level")
MOST_STROKES = 2_000_000
MOST_BYTES = 400 * 2**20  # twice what so many strokes take
ROUNDING = 1e-5  # by which a mean of colours may leave [0, 1]
LOWEST = (-10, -10, 0, 0, -1e6, *3 * [-ROUNDING], 0)
HIGHEST = (10, 10, 10, 10, 1e6, *3 * [1 + ROUNDING], 1000)


def save_strokes(path: Path, painting: Painting) -> None:
    """Write a painting, whole or not at all.

    Raises:
        DataError: the painting holds what `load_strokes` would refuse.
        CheckpointError: the file cannot be written.
    """
    floats = torch.cat([painting.shape_params, painting.colors], dim=1).float().cpu().numpy()
    levels = painting.levels.cpu().numpy()
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
    table = np.concatenate([floats.astype(np.float64), levels[:, None]], axis=1)
    if len(table) > MOST_STROKES or not _is_valid(table):
        _check_strokes(path, table.tolist())
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
    table = _check_strokes(path, document["strokes"])
    if brush is None and document["brush"] not in BRUSHES:
        named = printable(document["brush"])
        raise DataError(f"{path}: painted with the brush `{named}`; name its folder with --brush")
    floats = torch.from_numpy(table.astype(np.float32))
    red, green, blue = (float(value) for value in document["ground"])
    return Painting(
        aspect=float(document["aspect"]),
        shape_params=floats[:, :5].contiguous(),
        colors=floats[:, 5:8].contiguous(),
        levels=torch.from_numpy(table[:, 8].astype(np.int64)),
        ground=(red, green, blue),
        brush=brush or load_brush(document["brush"], marks=MARKS),
        opacity=float(document["opacity"]),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
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
        raise DataError(f"{path}: not a stroke file: no JSON: {str(bad).splitlines()[0]}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f'{path}: not a stroke file: its "format" is not "{FORMAT}"')
    return document


def _check_header(path: Path, document: dict[str, Any]) -> None:
    version = document.get("version", VERSION)
    if type(version) is not int or version != VERSION:
        found = json.dumps(version)[:40]
        raise DataError(f"{path}: stroke file of version {found}; this gtool reads version {VERSION}")
    for key in ("version", "aspect", "ground", "brush", "opacity", "columns", "strokes"):
        if key not in document:
            raise DataError(f'{path}: damaged stroke file: no "{key}" in it')
    ground, brush = document["ground"], document["brush"]
    is_color = isinstance(ground, list) and all(_is_within(x, -ROUNDING, 1 + ROUNDING) for x in ground)
    for key, is_right, wanted in (
        ("aspect", _is_within(document["aspect"], 1e-6, 1e6), "a number above 0"),
        ("ground", is_color and len(ground) == 3, "three numbers in [0, 1]"),
        ("brush", isinstance(brush, str) and 0 < len(brush) <= 1000, "a name"),
        ("opacity", _is_within(document["opacity"], 0, 1), "a number in [0, 1]"),
        ("columns", document["columns"] == list(COLUMNS), json.dumps(COLUMNS)),
        ("strokes", isinstance(document["strokes"], list), "a list"),
    ):
        if not is_right:
            raise DataError(f'{path}: damaged stroke file: "{key}" must be {wanted}')


def _is_within(value: Any, low: float, high: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and low <= value <= high  # no number that is not finite


def _check_strokes(path: Path, rows: list[Any]) -> np.ndarray:
    """Turn JSON rows into numbers (N, 9) float64; Python looks at each row only to name the bad one."""
    if len(rows) > MOST_STROKES:
        raise DataError(f"{path}: {len(rows):,} strokes; at most {MOST_STROKES:,} fit into a stroke file")
    are_lists = set(map(type, rows)) <= {list} and set(map(len, rows)) <= {len(COLUMNS)}
    if are_lists and set(map(type, chain.from_iterable(rows))) <= {int, float}:
        with suppress(OverflowError):  # an integer larger than any float
            table = np.array(rows, np.float64).reshape(-1, len(COLUMNS))
            if _is_valid(table):
                return table
    number, problem = next((n, text) for n, row in enumerate(rows) if (text := _problem(row)))
    raise DataError(f"{path}: damaged stroke file: stroke {number + 1}: {problem}")


def _is_valid(table: np.ndarray) -> bool:
    is_whole = table[:, -1] == np.floor(table[:, -1])
    return bool(((table >= LOWEST) & (table <= HIGHEST)).all() and is_whole.all())  # false for NaN


def _problem(row: Any) -> str:
    """Say what is wrong with a row; empty when nothing is."""
    if type(row) is not list or len(row) != len(COLUMNS):
        return f"is not a list of {len(COLUMNS)} numbers"
    for name, value, low, high in zip(COLUMNS, row, LOWEST, HIGHEST, strict=True):
        if type(value) not in (int, float):
            return f"{name} is not a number"
        if not low <= value <= high:  # nor what is not finite
            return f"{name} {value!s:.12} is not in [{round(low)}, {round(high)}]"
        if name == "level" and value != math.floor(value):
            return f"level {value:g} is not a whole number"
    return ""
