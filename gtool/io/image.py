"""Encoded images of strangers turned into 8-bit RGB: the one place where files become pixels.

What is stored            What comes out
8-bit RGB                 as it is
grey, bilevel             three equal channels
palette                   its colours
transparency (any mode)   composed on white; kept by `gtool.io.photo`
CMYK                      converted by Pillow
16-bit grey               scaled to 8 bits by 1/257, rounded (0 -> 0, 65535 -> 255)
16-bit RGB                the upper 8 bits of each channel: Pillow reads it so
32-bit and float          refused: they have no agreed range
EXIF orientation          applied, so that images are upright
animation, several pages  the first frame
.npy                      an array (H, W, 3) of numbers from 0 to 255; fractions are rounded

Pillow's limit on the number of pixels stays on. Resizing is Lanczos with antialiasing, in 8 bits; a JPEG may be
decoded at 1/2, 1/4 or 1/8 of its size as long as both sides stay at least twice the wanted resolution.
"""

import ctypes
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gtool.errors import DataError
from gtool.reading import reason

VERSION = 1  # of the pixels that come out: raised when any of them changes
MAX_BYTES, MAX_STORED = 1 << 28, 1 << 26  # of an image: in a file, and unpacked of an archive into memory
# A file is no larger than so much and 16 bytes a pixel: what is, is padded. Of formats with one picture.
_PADDING, _WITH_MANY = 1 << 24, ("GIF", "TIFF", "MPO")
# Readers of files from strangers: none that starts another program, as that of EPS would.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "PCX")
_BY_NAME = {".tga": "TGA"}  # that have no mark of their own: only files of this name are taken for them
_ORIENTATION, _BITS_PER_SAMPLE = 0x0112, 0x0102  # of TIFF
_ROWS = 256
_DAMAGED_EXIF = (SyntaxError, ValueError, KeyError, TypeError, IndexError, OverflowError)


class UnreadableImage(DataError):  # noqa: N818  (it is also a value: what stands in the place of pixels)
    """An image that cannot be used: where it is and why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


@dataclass(frozen=True)
class Stored:
    """An encoded image in an archive or a table that is not read yet: how many bytes it has, and what reads them."""

    size: int
    read: Callable[[], bytes]


Encoded = bytes | Path | Stored | UnreadableImage | None  # None: an empty cell


class _Room:
    """So many bytes for all threads together; who needs more than are left waits, and more than all is alone."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._changed = threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        size = min(size, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            with self._changed:
                self._left += size
                self._changed.notify_all()


# Taken in this order by every image that is open, so that no two can wait for each other.
_ENCODED, _PIXELS = _Room(MAX_STORED), _Room(1 << 29)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Turn the warning about too many pixels into an error and silence the rest while a set is read.

    The warning filters belong to the whole process, so this is for the main thread, around its workers.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def read_rgb(encoded: Encoded, name: str, at_least: int = 0) -> Image.Image:
    """Decode an image to mode RGB, by the table at the top of this file; UnreadableImage calls it `name`.

    at_least: pixels that both sides must keep; a larger JPEG is decoded smaller. 0 keeps the native size.
    """
    with open_image(encoded, name) as image:
        if at_least and image.format in ("JPEG", "MPO") and min(image.size) >= 4 * at_least:
            image.draft("RGB", (2 * at_least, 2 * at_least))
        layer = to_rgb_or_rgba(image, name)
        if layer.mode == "RGB":
            return layer
        flat = Image.new("RGB", layer.size)
        for top in range(0, layer.height, _ROWS):  # in strips, which take no memory to speak of
            strip = layer.crop((0, top, layer.width, min(top + _ROWS, layer.height)))
            white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
            flat.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
        return flat


def read_size(encoded: Encoded, name: str) -> tuple[int, int]:
    """Return width and height of an image as it is seen upright, without decoding it; or UnreadableImage."""
    with open_image(encoded, name) as image:
        width, height = image.size
        if not _has_exif(image):
            return width, height
        try:
            turned = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
        except _DAMAGED_EXIF:
            turned = False
        return (height, width) if turned else (width, height)


@contextmanager
def open_image(encoded: Encoded, name: str) -> Iterator[Image.Image]:
    """Open an image; whatever its decoder raises, then or within the block, becomes UnreadableImage."""
    try:
        size = _size_of(encoded, name)
        # Bytes are held already, by `bytes_of`.
        with _ENCODED.take(0 if isinstance(encoded, bytes) else size):
            content = encoded.read() if isinstance(encoded, Stored) else encoded
            with _open(content, name) as image:
                width, height = image.size
                if size > _PADDING + 16 * width * height and image.format not in _WITH_MANY:
                    raise UnreadableImage(name, f"{size >> 20} MB for {width} x {height} pixels")
                with _PIXELS.take(8 * width * height):
                    yield image
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(name, "no image of a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise UnreadableImage(name, f"more than {limit:.3g} million pixels") from None
    except MemoryError:
        raise UnreadableImage(name, "too large for the memory of this machine") from None
    # Decoders raise what they like on damaged files: OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as bad:
        raise UnreadableImage(name, f"damaged: {reason(bad)}") from None


def read_array(content: bytes) -> np.ndarray:
    """Return the array of an .npy file; ValueError for pickled objects, and a shape that the bytes do not bear out."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"an .npy of version {version}")
    shape, _, dtype = read_header[version](stream)
    if dtype.hasobject or prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"it has {len(content) - stream.tell():,} bytes, which is not {dtype} {shape}")
    return np.load(io.BytesIO(content), allow_pickle=False)


@contextmanager
def bytes_of(encoded: Encoded, name: str) -> Iterator[bytes]:
    """Hold the bytes of an encoded image, as many of all threads together as there is room for; or UnreadableImage."""
    with _ENCODED.take(_size_of(encoded, name)):
        try:
            content = encoded.read_bytes() if isinstance(encoded, Path) else encoded
            content = content.read() if isinstance(content, Stored) else content
        except Exception as bad:  # of archives
            raise UnreadableImage(name, f"cannot be read: {reason(bad)}") from None
        assert isinstance(content, bytes)
        yield content


def _size_of(encoded: Encoded, name: str) -> int:
    """Return how many bytes an encoded image has, of which nothing is read; UnreadableImage for none and too many."""
    if isinstance(encoded, UnreadableImage):
        raise encoded
    if isinstance(encoded, Path):
        try:
            size = os.stat(encoded).st_size
        except OSError as bad:
            raise UnreadableImage(name, f"cannot be read: {bad.strerror or bad}") from None
    else:
        size = encoded.size if isinstance(encoded, Stored) else len(encoded or b"")
    if size == 0:
        raise UnreadableImage(name, "empty")
    most = MAX_STORED if isinstance(encoded, Stored) else MAX_BYTES
    if size > most:
        raise UnreadableImage(name, f"larger than {most >> 20} MB")
    return size


def _open(encoded: Any, name: str) -> Image.Image:
    """Return an image of bytes or a file that is not decoded yet, or the one that an .npy file holds.

    Raises:
        UnreadableImage: an array of another shape, or of numbers that are not grey levels from 0 to 255.
    """
    is_array = encoded[:6] == b"\x93NUMPY" if isinstance(encoded, bytes) else encoded.suffix.lower() == ".npy"
    if not is_array:
        named = [kind for suffix, kind in _BY_NAME.items() if name.lower().endswith(suffix)]
        content = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
        return Image.open(content, formats=(*_formats(), *named))
    values = read_array(encoded if isinstance(encoded, bytes) else encoded.read_bytes())
    if values.ndim != 3 or values.shape[2] != 3 or not values.size:
        raise UnreadableImage(name, f"an array must be (height, width, 3); this is {values.shape}")
    if values.dtype.kind not in "uif":
        raise UnreadableImage(name, f"an array must hold numbers; this holds {values.dtype}")
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # NaN is neither
        raise UnreadableImage(name, f"an array must hold 0 to 255; this holds {low:.4g} to {high:.4g}")
    if values.dtype.kind == "f" and high <= 1:
        raise UnreadableImage(name, f"fractions up to {high:.4g} where 0 to 255 is meant; multiply by 255")
    image = Image.fromarray(np.rint(values).astype(np.uint8))
    image.format = "NPY"
    return image


@cache
def _formats() -> tuple[str, ...]:
    """The readers that this Pillow has; libtiff's own lines on stderr end here, as what it says is raised too."""
    Image.init()
    with suppress(OSError, AttributeError):  # a Pillow without libtiff, or with one inside
        library = ctypes.CDLL(Image.core.__file__)  # type: ignore[attr-defined]
        for handler in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _has_exif(image: Image.Image) -> bool:
    """Say whether an orientation may be noted; asked first, as reading it costs as much as a small JPEG."""
    return image.format != "JPEG" or bool(image.info.keys() & {"exif", "xmp"})


def _upright(image: Image.Image) -> Image.Image:
    """Apply the orientation noted in the EXIF data."""
    if not _has_exif(image):
        return image
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGED_EXIF:
        image.load()  # damaged notes say nothing of the pixels; damaged pixels raise here again
        return image


def to_rgb_or_rgba(image: Image.Image, name: str) -> Image.Image:
    """Turn upright, into RGB or, where something is transparent, RGBA; UnreadableImage for what has no RGB meaning."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())
    image = _upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode == "F":
        raise UnreadableImage(name, "float pixels, which have no agreed range; store 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if 32 in bits or values.min() < 0 or values.max() > 65535:
            raise UnreadableImage(name, "32-bit pixels, which have no agreed range; store 8 or 16 bits")
        grey = np.empty(values.shape, np.uint8)
        for top in range(0, len(values), _ROWS):
            grey[top : top + _ROWS] = (values[top : top + _ROWS].astype(np.uint32) + 128) // 257
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "RGBA":
        image.load()
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def to_square(image: Image.Image, resolution: int, crop: str = "center") -> np.ndarray:
    """Return uint8 (3, R, R) of the largest centred square (`center`) or the whole picture (`fit`)."""
    box = square_box(image.size, crop)
    if box != (0, 0, resolution, resolution) or image.size != (resolution, resolution):
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))  # (3, R, R)


def square_box(size: tuple[int, int], crop: str) -> tuple[int, int, int, int]:
    """Return what a square shows of an image of this width and height: left, top, right, bottom."""
    width, height = size
    if crop != "center":
        return 0, 0, width, height
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
