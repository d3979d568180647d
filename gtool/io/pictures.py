"""Pictures made of images: grids, labelled sheets, text, numbers as colours, and PNG files that say how they were made.

Everything here is uint8; an image is (3, H, W) as generators make it, a picture (H, W, 3) as files hold it.
"""

import math
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from gtool.errors import CheckpointError, printable
from gtool.io.files import atomic_write, flush
from gtool.io.outputs import check_folder

Pixels = NDArray[np.uint8]

COMFORTABLE_WIDTH = 768  # pixels that an enlarged grid comes near to
BACKGROUND, BESIDE_WHITE = 255, 192  # greys
WHITE = 247  # of a pixel that is not told from white

# Grids.


def grid(images: Any, columns: int | None = None, *, pad: int = 2, scale: int | None = None) -> Pixels:
    """Lay images uint8 (N, 3, H, W) out in rows, from left to right and from top to bottom: uint8 (H', W', 3).

    columns: images a row; None makes the layout square.
    pad: pixels around every image, not enlarged: white, or grey where the images end in white themselves.
    scale: whole number that every pixel is enlarged by; None brings the grid near COMFORTABLE_WIDTH.
    """
    images = np.asarray(images)
    count, channels, height, width = images.shape
    columns = min(count, columns or default_columns(count))
    factor = scale or comfortable_scale(columns * width)
    rows = -(-count // columns)
    # Each cell carries its own left and top margin; the picture adds the right and bottom one.
    cell = (height * factor + pad, width * factor + pad)
    edges = np.concatenate([images[:, :, [0, -1]].ravel(), images[..., [0, -1]].ravel()])
    around = BESIDE_WHITE if (edges > WHITE).mean() > 0.5 else BACKGROUND
    picture = np.full((rows * cell[0] + pad, columns * cell[1] + pad, channels), around, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * cell[0] + pad, number % columns * cell[1] + pad
        picture[top : top + height * factor, left : left + width * factor] = enlarge(image, factor)
    return picture


def default_columns(count: int) -> int:
    """Return the columns of the squarest layout that is not higher than wide."""
    return math.ceil(math.sqrt(count))


def comfortable_scale(width: int, wanted: int = COMFORTABLE_WIDTH) -> int:
    """Return the whole number that brings a width in pixels nearest to the wanted one, 1 at least."""
    return max(1, round(wanted / width))


def enlarge(image: Pixels, scale: int) -> Pixels:
    """Turn an image (3, H, W) into a picture (H x scale, W x scale, 3) of square blocks."""
    return np.asarray(image).transpose(1, 2, 0).repeat(scale, axis=0).repeat(scale, axis=1)


# PNG files.


def save_png(path: Path, picture: Pixels, text: Mapping[str, str] | None = None) -> None:
    """Write (H, W, 3) as a lossless PNG, whole or not at all, with `text` in its text chunks.

    Raises:
        CheckpointError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        write_png(temporary, picture, text)


def write_png(path: Path, picture: Pixels, text: Mapping[str, str] | None = None) -> None:
    """Write a PNG straight to its name: for folders that are renamed as a whole."""
    Image.fromarray(np.ascontiguousarray(picture)).save(path, format="PNG", pnginfo=text_chunks(text or {}))


def text_chunks(text: Mapping[str, str]) -> PngInfo:
    """Return the text chunks of a PNG; names of files in them are escaped."""
    chunks = PngInfo()
    for key, value in text.items():
        chunks.add_text(key, printable(value))
    return chunks


# Encoding leaves Python's lock, and flushing waits for the disk: more threads than cores pay off.
WORKERS = 4
BATCHES_AHEAD = 2  # handed over and not yet written, so that memory stays bounded
# Inside the folder, so that both are on one disk even where the folder is a mounted volume.
UNFINISHED = ".unfinished"

AddImages = Callable[[Sequence[int], Any, Sequence[Mapping[str, str]]], None]


@contextmanager
def open_folder(path: Path, *, overwrite: bool = False, scale: int = 1) -> Iterator[AddImages]:
    """Yield `add(numbers, images, texts)`, which writes uint8 (n, 3, H, W) as `<number, six digits>.png` with texts.

    Threads write while the next images are made. All files are in place when the block ends, none when it fails.

    overwrite: replace the numbered PNG files of a folder that is not empty; other files in it stay.
    scale: whole number that every pixel is enlarged by.

    Raises:
        CheckpointError: the folder is refused (`check_folder`) or cannot be written.
    """
    check_folder(path, overwrite)
    is_new = not path.exists()
    partial = path / UNFINISHED
    batches: deque[list[Future[None]]] = deque()

    def write(number: int, image: Any, text: Mapping[str, str]) -> None:
        file = partial / f"{number:06d}.png"
        write_png(file, enlarge(image, scale), text)
        flush(file)

    def wait(left: int) -> None:
        while len(batches) > left:
            for written in batches.popleft():
                written.result()

    def add(numbers: Sequence[int], images: Any, texts: Sequence[Mapping[str, str]]) -> None:
        batches.append([pool.submit(write, *row) for row in zip(numbers, images, texts, strict=True)])
        wait(BATCHES_AHEAD)

    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
        with ThreadPoolExecutor(WORKERS) as pool:
            yield add
            wait(0)
        for entry in path.iterdir():
            if re.fullmatch(r"\d{6,}\.png", entry.name):
                entry.unlink()
        for made in partial.iterdir():
            os.replace(made, path / made.name)
    except OSError as bad:
        raise CheckpointError(f"{path}: cannot be written: {bad.strerror or bad}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if is_new and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


# Numbers as colours: black for 0, over violet and red to nearly white. Brightness grows evenly, so that the order of
# values survives grey printing and colour blindness.
RAMP = np.array([(0, 0, 0), (72, 20, 116), (180, 40, 100), (244, 120, 40), (255, 208, 90), (255, 255, 235)])


def heat(values: Any, largest: float) -> Pixels:
    """Colour values (H, W), 0 to `largest`, as (3, H, W); all black where `largest` is 0."""
    share = np.clip(np.asarray(values, np.float64) / (largest or 1.0), 0, 1)
    stops = np.linspace(0, 1, len(RAMP))
    return np.stack([np.rint(np.interp(share, stops, channel)) for channel in RAMP.T]).astype(np.uint8)


# Text: drawn at three times its size and reduced at the end, which smooths it. Points and sizes are in pixels of the
# finished picture.

SUPERSAMPLING = 3
TEXT, TITLE = 13, 15  # font sizes
INK, SOFT, PAPER = "#222222", "#666666", "#ffffff"


def canvas(width: int, height: int) -> Image.Image:
    """Return white paper of this size, three times as wide and high."""
    return Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING), PAPER)


def finish(drawn: Image.Image) -> Pixels:
    """Reduce a canvas to its picture (H, W, 3) uint8."""
    return np.asarray(drawn.reduce(SUPERSAMPLING))


def write(
    pen: ImageDraw.ImageDraw,
    point: tuple[float, float],
    text: str,
    anchor: str,
    *,
    size: int = TEXT,
    colour: str = INK,
) -> None:
    """Write on a canvas; `anchor` is Pillow's: `lm` has the point at the left, half way up."""
    scaled = (point[0] * SUPERSAMPLING, point[1] * SUPERSAMPLING)
    pen.text(scaled, text, fill=colour, font=_font(size), anchor=anchor)


def width_of(pen: ImageDraw.ImageDraw, text: str, size: int = TEXT) -> float:
    """Return how wide a text becomes."""
    return pen.textlength(text, font=_font(size)) / SUPERSAMPLING


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * SUPERSAMPLING)


# Sheets: rows and columns of square cells with a title, heads of columns and labels of rows.

PAD = 3  # white between cells
HEAD, TITLE_HEIGHT, LABEL = 24, 30, 86  # heights of column heads and title, width of row labels
WIDEST = 1300  # pixels that a sheet of many columns comes near to
CELLS = (48, 64, 96, 128)  # sides of a cell
LARGEST = 192  # side of a cell that an image is enlarged to


@dataclass(frozen=True)
class Column:
    """The head of a column: a word, or a number on its colour."""

    text: str
    colour: str | None = None


@dataclass(frozen=True)
class Row:
    """A label of one line or two, and a picture (S, S, 3) for each column; None leaves a cell empty."""

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
        left, ink = LABEL + PAD + number * (cell + PAD), SOFT
        if column.colour:
            box = (left, top + 2, left + cell, top + HEAD - 4)
            pen.rectangle([SUPERSAMPLING * edge for edge in box], fill=column.colour)
            red, green, blue = (int(column.colour[i : i + 2], 16) for i in (1, 3, 5))
            ink = "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "#ffffff"
        write(pen, (left + cell / 2, top + HEAD / 2 - 1), column.text, "mm", colour=ink)
    return finish(drawn)


def _label(text: str, cell: int) -> Pixels:
    drawn = canvas(LABEL, cell)
    pen = ImageDraw.Draw(drawn)
    lines = text.split("\n")
    for number, line in enumerate(lines):
        size = 13 if width_of(pen, line) <= LABEL - 8 else 10
        middle = cell / 2 + 17 * (number - (len(lines) - 1) / 2)
        write(pen, (LABEL - 6, middle), line, "rm", size=size, colour=SOFT)
    return finish(drawn)
