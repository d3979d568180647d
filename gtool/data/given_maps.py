"""What a user gives to generate a picture from: a label map (grey, with a palette, or painted in a set's colours),
a depth map, a photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gtool.data.label_maps import UNLABELLED, nearest, read_depth, read_labels, to_ids
from gtool.errors import DataError
from gtool.io.image import UnreadableImage, open_image, quiet_pillow, read_rgb


def read_map(
    path: Path,
    num_labels: int,
    size: tuple[int, int] | None = None,
    *,
    cell: int = 1,
    colours: NDArray[np.uint8] | None = None,
) -> np.ndarray:
    """Return the ids (H, W) of a map, uint8 or uint16; `num_labels` where there is no label (255, or 65535 of 16 bits).

    Args:
        path: the file. Labels are its grey values or palette indices as they are stored.
        num_labels: that are known.
        size: height and width that are wanted; a map of the same shape is brought to it by taking nearest pixels.
            None keeps the size of the map, whose sides must be multiples of `cell`.
        cell: pixels of a cell's side.
        colours: (n, 3), colour of each id, that of no label too where there is one. A map that is painted in
            these alone, exactly, is understood too.

    Raises:
        DataError: one line: no such file, no label map, unknown labels or colours, a size that cannot be used.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; a label map is a PNG whose values are labels")
    try:
        with quiet_pillow():
            labels = None if colours is None else _by_colour(path, num_labels, colours)
            if labels is None:
                labels = read_labels(path, str(path))
    except UnreadableImage as unreadable:
        hint = "; is it a photo?" if "this is RGB" in unreadable.reason else ""
        raise DataError(f"{unreadable}{hint}") from None
    _require_known(labels, num_labels, path)
    return to_ids(nearest(labels, _fitting_size(labels, size, cell, path)), num_labels)


def read_given_depth(
    path: Path, size: tuple[int, int] | None = None, *, cell: int = 1
) -> NDArray[np.float32]:
    """Return a depth map (H, W) from 0, its smallest value, to 1; `size` and `cell` as of `read_map`.

    Raises:
        DataError: one line: no such file, no depth map, a size that cannot be used.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; a depth map is a grey picture of distances")
    with quiet_pillow():
        depth = read_depth(path, str(path))
    height, width = _fitting_size(depth, size, cell, path)
    return np.asarray(Image.fromarray(depth).resize((width, height), Image.Resampling.BILINEAR)).clip(0, 1)


def read_photo(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the largest part (3, H, W) in the middle of a photo that has the shape of `size`, brought to that size.

    Raises:
        DataError: one line: no such file, no photo.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with quiet_pillow():
        photo = read_rgb(path, str(path))
    (height, width), scale = size, min(photo.height / size[0], photo.width / size[1])
    left, top = (photo.width - scale * width) / 2, (photo.height - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    if photo.size != (width, height):
        photo = photo.resize((width, height), Image.Resampling.LANCZOS, box=box)
    return np.ascontiguousarray(np.asarray(photo).transpose(2, 0, 1))


def _by_colour(path: Path, num_labels: int, colours: NDArray[np.uint8]) -> np.ndarray | None:
    """Return the ids of a map that is painted; None where a palette holds other colours, and for grey.

    Raises:
        DataError: a colour picture with colours of its own.
    """
    with open_image(path, str(path)) as image:
        if image.mode not in ("RGB", "RGBA", "P"):
            return None
        pixels = np.asarray(image.convert("RGBA")).astype(np.uint32)
        stored_by_colour = image.mode != "P"
    if (pixels[..., 3] < 255).any():
        raise DataError(f"{path}: a label map has no transparent pixels")
    painted, where = np.unique(_number(pixels[..., :3]), return_inverse=True)
    known = _number(np.asarray(colours).astype(np.uint32))
    is_id = painted[:, None] == known
    if is_id.any(1).all():
        ids = is_id.argmax(1)
        ids[ids == num_labels] = UNLABELLED
        return ids.astype(np.uint16)[where.reshape(pixels.shape[:2])]
    if not stored_by_colour:
        return None
    other = painted[~is_id.any(1)]
    raise DataError(
        f"{path}: no label map: {len(other):,} of its colours, as #{other[0]:06x}, are none of the "
        f"{len(known)} of this set; is it a photo, or were edges smoothed?"
    )


def _number(rgb: NDArray[np.uint32]) -> NDArray[np.uint32]:
    number: NDArray[np.uint32] = (rgb * np.array([1 << 16, 1 << 8, 1], np.uint32)).sum(-1, dtype=np.uint32)
    return number


def _require_known(labels: np.ndarray, num_labels: int, path: Path) -> None:
    unknown = np.unique(labels[(labels >= num_labels) & (labels != UNLABELLED)])
    if len(unknown):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        named = ", ".join(str(label) for label in unknown[:3])
        raise DataError(
            f"{path}: unknown labels {named}{more}; those from 0 to {num_labels - 1} are known, and "
            "255 is no label (65535 in a map of 16 bits)"
        )


def _fitting_size(values: np.ndarray, size: tuple[int, int] | None, cell: int, path: Path) -> tuple[int, int]:
    """Return the height and width that a map is brought to.

    Raises:
        DataError: a size or shape that cannot be used.
    """
    height, width = values.shape
    if size is None:
        if height % cell or width % cell:
            near = [max(cell, round(side / cell) * cell) for side in (width, height)]
            raise DataError(
                f"{path}: {width}x{height} pixels; both sides must be multiples of {cell}, as {near[0]}x{near[1]}"
            )
        return height, width
    if abs(width - size[1] * height / size[0]) > 1 and abs(height - size[0] * width / size[1]) > 1:
        raise DataError(
            f"{path}: {width}x{height} pixels, and {size[1]}x{size[0]} or the same shape in another size is wanted"
        )
    return size
