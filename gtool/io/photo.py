"""Single photos: read with transparency and colour profile, made smaller, written back.

Decoding is that of `gtool.io.image`; only here transparency is kept instead of composed on white.

Axis letters: H W pixels of a photo.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gtool import console
from gtool.errors import DataError
from gtool.io.files import atomic_write
from gtool.io.image import UnreadableImage, open_image, quiet_pillow, read_rgb, to_rgb_or_rgba
from gtool.io.image_files import FORMATS, check_size
from gtool.io.pictures import Pixels, text_chunks
from gtool.reading import file_problem

# PNG: strokes are noisy, more effort wins 2 % and doubles the time (measured). JPEG: 4:4:4.
_ENCODER_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 92, "subsampling": 0},
    "WEBP": {"quality": 90, "method": 4},
}
_MAX_PROFILE = 4 << 20  # bytes
_INK_SEEN = 0.06  # of full ink: what is fainter is paper


@dataclass(frozen=True)
class Photo:
    """A photo upright, in its own colour space.

    pixels: uint8 (H, W, 3).
    alpha: uint8 (H, W), or None where all is opaque.
    icc: colour profile of RGB pixels, or None.
    notes: what a user should know of how the file was read.
    full_size: height and width before it was made smaller, None where the photo is of no file.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    icc: bytes | None = None
    notes: tuple[str, ...] = ()
    full_size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.pixels.shape[:2]
        return height, width

    def mean_color(self) -> tuple[float, float, float]:
        """Return the mean of what can be seen, in [0, 1]; white when nothing can."""
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
        height, width = self.size
        red, green, blue = (round(255 * value) for value in ground)
        under = Image.new("RGB", (width, height), (red, green, blue))
        return np.array(Image.composite(Image.fromarray(self.pixels), under, Image.fromarray(self.alpha)))


def read_photo(path: Path, at_most: int | None = None) -> Photo:
    """Read a photo, made smaller where its longer side has more than `at_most` pixels.

    Raises:
        UnreadableImage: missing, no image, damaged, too large, or of a kind that has no RGB meaning.
    """
    name = str(path)
    if problem := file_problem(path):
        raise UnreadableImage(name, problem)
    with quiet_pillow(), open_image(path, name) as image:
        notes, icc, (width, height) = _notes(image), _profile(image), image.size
        if at_most and image.format in ("JPEG", "MPO") and max(image.size) > 2 * at_most:
            # Decoded at 1/2, 1/4 or 1/8 of its size, the longer side not below twice the wanted one.
            share = 2 * at_most / max(image.size)
            image.draft("", (max(1, round(width * share)), max(1, round(height * share))))
        layer = to_rgb_or_rgba(image, name)
        is_turned = (layer.width > layer.height) != (width > height)
        full_size = (width, height) if is_turned else (height, width)
        if at_most:
            layer = _resize(layer, at_most)
        return replace(photo_of(layer), icc=icc, notes=notes, full_size=full_size)


def photo_of(layer: Image.Image) -> Photo:
    """Return an upright RGB or RGBA image as a photo."""
    alpha = None
    if layer.mode == "RGBA":
        alpha = np.array(layer.getchannel("A"))
        alpha = None if alpha.min() == 255 else alpha
    return Photo(np.array(layer.convert("RGB")), alpha)


def read_cropped(path: Path, size: tuple[int, int]) -> Pixels:
    """Return the largest part (3, H, W) in the middle of a photo that has the shape of `size`, brought to that size.

    It is said where that is not all of it. DataError: no such file, no photo.
    """
    photo = _read_whole(path)
    (width, height), scale = photo.size, min(photo.height / size[0], photo.width / size[1])
    if height * size[1] != width * size[0]:
        part = f"{round(scale * size[1])}x{round(scale * size[0])}"
        console.notice(f"{path}: {width}x{height} pixels, of another shape: its middle {part} is used")
    return _cropped(photo, size, Image.Resampling.LANCZOS)


def read_mask(path: Path, photo: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels of a photo, as `read_cropped` returns it, are white in a mask of the photo's size: (H, W).

    A pixel that the mask covers in part is covered. DataError: no mask, of another size, all or nothing covered.
    """
    mask, expected = _read_whole(path), _read_whole(photo).size
    if mask.size != expected:
        (width, height), (own_width, own_height) = expected, mask.size
        raise DataError(
            f"{path}: {own_width}x{own_height} pixels; a mask has the size of its photo, {width}x{height}"
        )
    values = np.asarray(mask)
    if (values != values[..., :1]).any():
        raise DataError(f"{path}: has colours; a mask is white where it is sampled, black where it is kept")
    covered = (
        _cropped(
            Image.fromarray(np.where(values > 127, 255, 0).astype(np.uint8)), size, Image.Resampling.BOX
        )[0]
        > 0
    )
    if covered.all() or not covered.any():
        what = "is all white, so nothing is kept" if covered.all() else "has no white, so nothing is sampled"
        raise DataError(f"{path}: {what}; a mask is white where the photo is sampled, black where it is kept")
    return covered


def _read_whole(path: Path) -> Image.Image:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with quiet_pillow():
        return read_rgb(path, str(path))


def _cropped(photo: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Pixels:
    (height, width), scale = size, min(photo.height / size[0], photo.width / size[1])
    left, top = (photo.width - scale * width) / 2, (photo.height - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    if photo.size != (width, height):
        photo = photo.resize((width, height), resample, box=box)
    return np.ascontiguousarray(np.asarray(photo).transpose(2, 0, 1))


def _notes(image: Image.Image) -> tuple[str, ...]:
    # The second picture of an MPO is the camera's own preview.
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return ()
    if image.format == "TIFF":
        return ("several pages; the first one is painted",)
    return ("an animation; its first frame is painted (-o FILE.mp4 paints them all)",)


def _profile(image: Image.Image) -> bytes | None:
    """The colour profile, where it still describes the pixels once they are RGB."""
    icc = image.info.get("icc_profile")
    if not isinstance(icc, bytes) or not 128 <= len(icc) <= _MAX_PROFILE:
        return None
    return icc if icc[16:20] == b"RGB " and icc[36:40] == b"acsp" else None


def _resize(layer: Image.Image, at_most: int) -> Image.Image:
    size = fitting(*layer.size, at_most)
    return layer if size == layer.size else layer.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def fitting(width: int, height: int, at_most: int) -> tuple[int, int]:
    """Return the size whose longer side has no more than so many pixels."""
    share = min(1.0, at_most / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))


def shrink(pixels: Pixels, at_most: int) -> Pixels:
    """Make a picture (H, W, 3) smaller where its longer side has more than `at_most` pixels."""
    return pixels if max(pixels.shape[:2]) <= at_most else np.array(_resize(Image.fromarray(pixels), at_most))


def read_ink(path: Path) -> NDArray[np.float32]:
    """Read a picture of a brush mark: how much ink is where, (H, W) in [0, 1], cut to the ink, its bristles upright.

    Transparency is what there is no ink on; without any, dark on a light paper and light on a dark one both work.
    A mark that is wider than high is turned: bristles run along it.

    Raises:
        UnreadableImage: as `read_photo`, or no ink in it.
    """
    photo = read_photo(path, at_most=1024)
    if photo.alpha is not None:
        ink = photo.alpha.astype(np.float32) / 255
    else:
        grey = photo.pixels.astype(np.float32).mean(-1) / 255
        edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        contrast = np.abs(grey - np.float32(np.median(edge)))
        full = contrast.max() if contrast.max() > _INK_SEEN else np.inf
        ink = contrast / full
    is_ink = ink > _INK_SEEN
    rows, columns = np.flatnonzero(is_ink.any(1)), np.flatnonzero(is_ink.any(0))
    if not len(rows):
        raise UnreadableImage(str(path), "no ink in the picture of a brush mark")
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(ink.T if ink.shape[1] > ink.shape[0] else ink, np.float32)


def save_photo(
    path: Path,
    pixels: Pixels,
    *,
    alpha: Pixels | None = None,
    icc: bytes | None = None,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write uint8 (H, W, 3), upright, as .png, .jpg or .webp, whole or not at all.

    alpha: uint8 (H, W), kept where the format can. icc: colour profile of the pixels. text: chunks of a PNG.

    Raises:
        DataError: the format cannot hold so many pixels.
        CheckpointError: the file cannot be written.
    """
    kind = FORMATS[path.suffix.lower()]
    check_size(path, pixels.shape[1], pixels.shape[0])
    image = Image.fromarray(pixels)
    if alpha is not None and kind != "JPEG":
        image.putalpha(Image.fromarray(alpha))
    options = dict(_ENCODER_OPTIONS[kind])
    if icc is not None:
        options["icc_profile"] = icc
    if kind == "PNG":
        options["pnginfo"] = text_chunks(text or {})
    with atomic_write(path) as temporary:
        image.save(temporary, format=kind, **options)
