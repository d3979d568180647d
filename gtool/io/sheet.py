"""Pictures in rows and columns that say what they are: a title, heads of columns, labels of rows, square cells.

Cells are uint8 (3, S, S), sheets uint8 (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from gtool.io.picture import BACKGROUND, Pixels, comfortable_scale
from gtool.io.text import SOFT, SUPERSAMPLING, TITLE, canvas, finish, width_of, write

PAD = 3  # white between cells
HEAD, TITLE_HEIGHT, LABEL = 24, 30, 86  # heights of column heads and title, width of row labels
WIDEST = 1300  # pixels that a sheet of many components comes near to
CELLS = (48, 64, 96, 128)  # sides of a cell
LARGEST = 192  # side of a cell that an image is enlarged to


@dataclass(frozen=True)
class Column:
    """The head of a column: a word, or a number on its colour."""

    text: str
    colour: str | None = None


@dataclass(frozen=True)
class Row:
    """A label of one line or two, and a picture for each column; None leaves a cell empty."""

    label: str
    cells: Sequence[Pixels | None]


def cell_side(columns: int) -> int:
    """Return the side of a cell that brings a sheet of so many columns near the wanted width."""
    return max([side for side in CELLS if LABEL + columns * (side + PAD) <= WIDEST], default=CELLS[0])


def image_cell(resolution: int, columns: int, scale: int | None = None) -> int:
    """Return the side of cells for images: whole blocks where they are enlarged, halved where they are many.

    `scale`, where given, is how much larger than the images they are.
    """
    wanted = min(LARGEST, max(CELLS[0], (WIDEST - LABEL) // columns - PAD))
    side = resolution * max(scale or comfortable_scale(resolution, wanted), -(-CELLS[0] // resolution))
    while scale is None and side // 2 >= max(wanted, CELLS[-1]):
        side //= 2
    return side


def fit(image: Pixels, side: int) -> Pixels:
    """Bring an image (3, R, R) to a cell (side, side, 3): whole blocks where it is enlarged."""
    rule = Image.Resampling.NEAREST if image.shape[-1] <= side else Image.Resampling.BOX
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return np.asarray(picture.resize((side, side), rule))


def sheet(rows: Sequence[Row], columns: Sequence[Column], cell: int, title: str, note: str = "") -> Pixels:
    """Lay rows of cells out under a title, a note at its right and the heads of columns; uint8 (H, W, 3)."""
    width = LABEL + len(columns) * (cell + PAD) + PAD
    top = TITLE_HEIGHT + HEAD
    picture = np.full((top + len(rows) * (cell + PAD), width, 3), BACKGROUND, np.uint8)
    picture[:top] = _heading(columns, cell, width, (title, note))
    for number, row in enumerate(rows):
        y = top + number * (cell + PAD)
        picture[y : y + cell, :LABEL] = _label(row.label, cell)
        for place, content in enumerate(row.cells):
            x = LABEL + PAD + place * (cell + PAD)
            if content is not None:
                picture[y : y + cell, x : x + cell] = content
    return picture


def _heading(columns: Sequence[Column], cell: int, width: int, words: tuple[str, str]) -> Pixels:
    top = TITLE_HEIGHT
    drawn = canvas(width, top + HEAD)
    pen = ImageDraw.Draw(drawn)
    write(pen, (PAD + 4, top / 2), words[0], "lm", size=TITLE)
    write(pen, (width - PAD, top / 2), words[1], "rm", colour=SOFT)
    for number, column in enumerate(columns):
        left = LABEL + PAD + number * (cell + PAD)
        if column.colour:
            box = (left, top + 2, left + cell, top + HEAD - 4)
            pen.rectangle([SUPERSAMPLING * edge for edge in box], fill=column.colour)
        ink = _readable_on(column.colour) if column.colour else SOFT
        write(pen, (left + cell / 2, top + HEAD / 2 - 1), column.text, "mm", colour=ink)
    return finish(drawn)


def _readable_on(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "#ffffff"


def _label(text: str, cell: int) -> Pixels:
    drawn = canvas(LABEL, cell)
    pen = ImageDraw.Draw(drawn)
    lines = text.split("\n")
    for number, line in enumerate(lines):
        size = 13 if width_of(pen, line) <= LABEL - 8 else 10
        middle = cell / 2 + 17 * (number - (len(lines) - 1) / 2)
        write(pen, (LABEL - 6, middle), line, "rm", size=size, colour=SOFT)
    return finish(drawn)
