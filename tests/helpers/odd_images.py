"""Files that people really have: every mode, damaged ones, and what only looks like an image."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

RED, GREEN, WHITE = (220, 30, 40), (20, 200, 60), (255, 255, 255)


def plain(path: Path, colour: tuple[int, int, int] = RED, size: tuple[int, int] = (12, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def folder(path: Path, count: int = 4) -> Path:
    """A folder of images that differ: image i has the grey level 10 * i."""
    for index in range(count):
        plain(path / f"{index:02}.png", (10 * index,) * 3)
    return path


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def half_transparent() -> Image.Image:
    """Green on the left, nothing on the right."""
    pixels = np.zeros((12, 12, 4), np.uint8)
    pixels[:, :6] = (*GREEN, 255)
    pixels[:, 6:, :3] = RED  # must not be seen
    return Image.fromarray(pixels)


def turned_jpeg() -> bytes:
    """Stored lying, 16x8, red above green; upright (orientation 6) it is 8x16 with red on the right."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:4], pixels[4:] = RED, GREEN
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(Image.fromarray(pixels), "JPEG", exif=exif, quality=95, subsampling=0)


def damaged_notes_jpeg() -> bytes:
    return encode(
        Image.new("RGB", (12, 12), RED), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05garbage", quality=95
    )


def truncated_jpeg() -> bytes:
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    return encode(Image.fromarray(noise), "JPEG")[:900]


def bomb_png(side: int = 50_000) -> bytes:
    """A header that promises billions of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


def animation() -> bytes:
    frames = [Image.new("RGB", (12, 12), colour) for colour in (RED, GREEN)]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
