"""Text for pictures: drawn at three times its size and reduced at the end, which smooths it.

Points and sizes are in pixels of the finished picture.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gtool.io.picture import Pixels

SUPERSAMPLING = 3
TEXT, TITLE = 13, 15  # font sizes
INK, SOFT, FAINT, PAPER = "#222222", "#666666", "#e4e4e4", "#ffffff"


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
