"""Photos to paint: which files are meant, their pixels with transparency and colour profile, and files written back.

Finding photos reads no pixel and imports nothing heavy. Reading follows `gtool.data.decode`, except that
transparency and the colour profile are kept.

Axis letters: H W pixels of a photo.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool.data.names import IMAGE_SUFFIXES, visible_files
from gtool.errors import DataError, did_you_mean
from gtool.io.checkpoint import atomic_write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Pixels = NDArray[np.uint8]

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}  # that are written
LONGEST = {"JPEG": 65_500, "WEBP": 16_383}  # pixels a side that a format can hold
OPAQUE = {"JPEG"}
PNG_LEVEL = 4  # of compression: strokes are noisy, more effort wins 2 % and doubles the time (measured)
JPEG_QUALITY, WEBP_QUALITY = 92, 90
MAX_PROFILE = 4 << 20  # bytes
INK_SEEN = 0.06  # of full ink: what is fainter is paper


# Finding.


@dataclass(frozen=True)
class Found:
    """A file that an argument of the command line stands for, or why there is none."""

    path: Path
    below: Path = Path()  # folders between the argument and the file
    searched: bool = False  # found in a folder or by a pattern, not named
    problem: str = ""


def find_photos(arguments: Sequence[str]) -> list[Found]:
    """Find the photos that files, folders and quoted patterns stand for, each file once.

    Folders are searched with all below them for files called as images; hidden ones are passed over and links
    followed, each folder once. A named file may be called anything. What cannot be found comes back with a problem.
    """
    found: dict[str, Found] = {}
    for argument in arguments:
        for item in _find(argument):
            found.setdefault(os.path.abspath(item.path), item)
    return list(found.values())


def _find(argument: str) -> list[Found]:
    if not argument:
        return [Found(Path(), problem="a photo without a name")]
    path = Path(argument if os.path.lexists(argument) else os.path.expanduser(argument))
    if os.path.isdir(path):
        return _find_in_folder(path)
    if not os.path.lexists(path) and glob.has_magic(argument):
        matches = sorted(glob.glob(str(path), recursive=True))
        inside = [replace(item, searched=True) for match in matches for item in _find(match)]
        return inside or [Found(path, searched=True, problem="no file fits this pattern")]
    return [Found(path, problem=_problem(path))]


def _problem(path: Path) -> str:
    """Say why a path is no file that can be opened; empty when it is one."""
    if os.path.isfile(path):
        return "" if os.access(path, os.R_OK) else "cannot be read: permission denied"
    if os.path.islink(path):
        return "a link that leads nowhere"
    if os.path.lexists(path):
        return "not a file"
    try:
        near = did_you_mean(path.name, sorted(os.listdir(path.parent)))
    except OSError:
        near = ""
    return f"no such file{near if near.startswith('; did') else ''}"


def _find_in_folder(root: Path) -> list[Found]:
    try:
        paths = sorted(visible_files(root, IMAGE_SUFFIXES))
    except DataError as bad:
        return [Found(root, searched=True, problem=str(bad).removeprefix(f"{root}: "))]
    if not paths:
        suffixes = " ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        return [Found(root, searched=True, problem=f"no photos found (looked for {suffixes})")]
    return [Found(path, path.relative_to(root).parent, True, _problem(path)) for path in paths]


# Reading.


@dataclass(frozen=True)
class Photo:
    """A photo upright, in its own colour space.

    pixels: uint8 (H, W, 3).
    alpha: uint8 (H, W), or None where all is opaque.
    icc: colour profile of RGB pixels, or None.
    notes: what a user should know of how the file was read.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    icc: bytes | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.pixels.shape[:2]
        return height, width

    def mean_color(self) -> tuple[float, float, float]:
        """Return the mean of what can be seen, in [0, 1]; white when nothing can."""
        import numpy as np

        if self.alpha is None:
            red, green, blue = self.pixels.mean(axis=(0, 1), dtype=np.float64) / 255
        elif self.alpha.any():
            total = np.einsum("hwc,hw->c", self.pixels, self.alpha, dtype=np.float64)
            red, green, blue = total / self.alpha.sum(dtype=np.float64) / 255
        else:
            red = green = blue = 1.0
        return float(red), float(green), float(blue)

    def over(self, ground: tuple[float, float, float]) -> Pixels:
        """Compose the photo over a colour in [0, 1]: uint8 (H, W, 3)."""
        if self.alpha is None:
            return self.pixels
        import numpy as np
        from PIL import Image

        height, width = self.size
        red, green, blue = (round(255 * value) for value in ground)
        under = Image.new("RGB", (width, height), (red, green, blue))
        return np.array(Image.composite(Image.fromarray(self.pixels), under, Image.fromarray(self.alpha)))


def read_photo(path: Path, at_most: int | None = None) -> Photo:
    """Read a photo, made smaller where its longer side has more than `at_most` pixels.

    Raises:
        UnreadableImage: missing, no image, damaged, too large, or of a kind that has no RGB meaning.
    """
    from gtool.data.decode import UnreadableImage, open_image, quiet_pillow, to_layer, upright

    name = str(path)
    if problem := _problem(path):
        raise UnreadableImage(name, problem)
    with quiet_pillow(), open_image(path, name) as image:
        notes = _notes(image)
        icc = _profile(image)
        if at_most and image.format in ("JPEG", "MPO"):
            _decode_smaller(image, 2 * at_most)
        layer = to_layer(upright(image), name)
        return _photo(_fit(layer, at_most) if at_most else layer, icc, notes)


def _photo(layer: Image.Image, icc: bytes | None, notes: tuple[str, ...]) -> Photo:
    import numpy as np

    alpha = None
    if layer.mode == "RGBA":
        alpha = np.array(layer.getchannel("A"))
        alpha = None if alpha.min() == 255 else alpha
    return Photo(np.array(layer.convert("RGB")), alpha, icc, notes)


def _notes(image: Image.Image) -> tuple[str, ...]:
    # The second picture of an MPO is the camera's own preview.
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return ()
    return (
        ("several pages; the first one is painted",)
        if image.format == "TIFF"
        else ("an animation; its first frame is painted (-o FILE.mp4 paints them all)",)
    )


def _profile(image: Image.Image) -> bytes | None:
    """The colour profile, where it still describes the pixels once they are RGB."""
    icc = image.info.get("icc_profile")
    if not isinstance(icc, bytes) or not 128 <= len(icc) <= MAX_PROFILE:
        return None
    return icc if icc[16:20] == b"RGB " and icc[36:40] == b"acsp" else None


def _decode_smaller(image: Image.Image, longer: int) -> None:
    """Let a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, its longer side not below `longer` pixels."""
    share = longer / max(image.size)
    if share < 1:
        width, height = (max(1, round(side * share)) for side in image.size)
        image.draft("", (width, height))


def _fit(layer: Image.Image, at_most: int) -> Image.Image:
    from PIL import Image

    width, height = fitting(*layer.size, at_most)
    if (width, height) == layer.size:
        return layer
    return layer.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def fitting(width: int, height: int, at_most: int) -> tuple[int, int]:
    """Return the size whose longer side has no more than so many pixels."""
    share = min(1.0, at_most / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))


def shrink(pixels: Pixels, at_most: int) -> Pixels:
    """Make a picture (H, W, 3) smaller where its longer side has more than `at_most` pixels."""
    import numpy as np
    from PIL import Image

    height, width, _ = pixels.shape
    if max(height, width) <= at_most:
        return pixels
    return np.array(_fit(Image.fromarray(pixels), at_most))


def read_ink(path: Path) -> NDArray[np.float32]:
    """Read a picture of a brush mark: how much ink is where, (H, W) in [0, 1], cut to the ink, its bristles upright.

    Transparency is what there is no ink on; without any, dark on a light paper and light on a dark one both work.
    A mark that is wider than high is turned: bristles run along it.

    Raises:
        UnreadableImage: as `read_photo`, or no ink in it.
    """
    import numpy as np

    from gtool.data.decode import UnreadableImage

    photo = read_photo(path, at_most=1024)
    if photo.alpha is not None:
        ink = photo.alpha.astype(np.float32) / 255
    else:
        grey = photo.pixels.astype(np.float32).mean(-1) / 255
        edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        contrast = np.abs(grey - np.float32(np.median(edge)))
        full = contrast.max() if contrast.max() > INK_SEEN else np.inf
        ink = contrast / full
    is_ink = ink > INK_SEEN
    rows, columns = np.flatnonzero(is_ink.any(1)), np.flatnonzero(is_ink.any(0))
    if not len(rows):
        raise UnreadableImage(str(path), "no ink in the picture of a brush mark")
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(ink.T if ink.shape[1] > ink.shape[0] else ink, np.float32)


# Writing.


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse a picture that its format cannot hold.

    Raises:
        DataError: too many pixels a side.
    """
    longest = LONGEST.get(FORMATS[path.suffix.lower()])
    if longest is not None and max(width, height) > longest:
        raise DataError(f"{path}: {path.suffix} holds at most {longest:,} pixels a side; write .png")


def save_photo(
    path: Path,
    pixels: Pixels,
    *,
    alpha: Pixels | None = None,
    icc: bytes | None = None,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write uint8 (H, W, 3) as .png, .jpg or .webp, whole or not at all.

    Args:
        path: one of FORMATS by its suffix.
        pixels: upright; no orientation is noted.
        alpha: uint8 (H, W), kept where the format can.
        icc: colour profile of the pixels.
        text: chunks of a PNG; other formats have none.

    Raises:
        DataError: the format cannot hold so many pixels.
        CheckpointError: the file cannot be written.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    kind = FORMATS[path.suffix.lower()]
    check_size(path, pixels.shape[1], pixels.shape[0])
    image = Image.fromarray(pixels)
    if alpha is not None and kind not in OPAQUE:
        image.putalpha(Image.fromarray(alpha))
    options: dict[str, Any] = {} if icc is None else {"icc_profile": icc}
    if kind == "PNG":
        chunks = PngInfo()
        for key, value in (text or {}).items():
            chunks.add_text(key, value)
        options |= {"pnginfo": chunks, "compress_level": PNG_LEVEL}
    elif kind == "JPEG":
        options |= {"quality": JPEG_QUALITY, "subsampling": 0}
    else:
        options |= {"quality": WEBP_QUALITY, "method": 4}
    with atomic_write(path) as temporary:
        image.save(temporary, format=kind, **options)
