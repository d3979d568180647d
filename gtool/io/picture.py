"""Images side by side in one picture, and pictures as PNG files that say how they were made.

Everything here is uint8; an image is (3, R, R) as generators make it, a picture (H, W, 3) as files hold it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gtool.io.files import atomic_write

Pixels = NDArray[np.uint8]

COMFORTABLE_WIDTH = 768  # pixels that an enlarged grid comes near to
BACKGROUND = 255


def grid(images: Any, columns: int | None = None, *, pad: int = 2, scale: int | None = None) -> Pixels:
    """Lay images out in rows, from left to right and from top to bottom.

    Args:
        images: uint8 (N, 3, H, W), N >= 1.
        columns: images a row; None makes the layout square.
        pad: white pixels around every image, not enlarged.
        scale: whole number that every pixel is enlarged by; None brings the grid near COMFORTABLE_WIDTH.

    Returns:
        uint8 (H', W', 3).
    """
    images = np.asarray(images)
    count, channels, height, width = images.shape
    columns = min(count, columns or default_columns(count))
    factor = scale or comfortable_scale(columns * width)
    rows = -(-count // columns)
    # Each cell carries its own left and top margin; the picture adds the right and bottom one.
    cell = (height * factor + pad, width * factor + pad)
    picture = np.full((rows * cell[0] + pad, columns * cell[1] + pad, channels), BACKGROUND, np.uint8)
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


def save_png(path: Path, picture: Pixels, text: Mapping[str, str] | None = None) -> None:
    """Write (H, W, 3) as a lossless PNG, whole or not at all, with `text` in its text chunks.

    Raises:
        CheckpointError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        write_png(temporary, picture, text)


def write_png(path: Path, picture: Pixels, text: Mapping[str, str] | None = None) -> None:
    """Write a PNG straight to its name: for folders that are renamed as a whole."""
    chunks = PngInfo()
    for key, value in (text or {}).items():
        chunks.add_text(key, value)
    Image.fromarray(np.ascontiguousarray(picture)).save(path, format="PNG", pnginfo=chunks)
