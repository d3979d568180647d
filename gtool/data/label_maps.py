"""Label maps and depth maps: those beside the images of a set, as squares, and those that a user names, at any size.

One rule for all sets: ids 0 to num_labels - 1 are labels as they are stored, and what has no label has the id
`num_labels`, one more than the last; so there are num_labels + 1 ids. Stored without a label is 255 in maps of 8 bits
and 65535 in maps of 16. (COCO's loaders add 1 instead, so that 0 is without label; stored values and names then no
longer agree, and sets without such pixels need another rule.) A set that holds nothing but 0 and 255, as masks of
figures do, has two labels, 0 and 1.

A map has the crop of its image. Labels are resized by taking the nearest pixel, never mixed: the mean of the labels 3
and 5 is no 4. Depth is a quantity and is averaged; each map is scaled by its own smallest and largest value.

Axis letters: N images, H W pixels, R pixels of a square's side, h w grid.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gtool.errors import DataError
from gtool.io.image import Encoded, UnreadableImage, open_image, quiet_pillow, square_box
from gtool.reading import parse_json, read_bytes

VERSION = 2  # of the maps that come out: raised when any of them changes
UNLABELLED = 65535  # in squares of labels before they become ids
MAX_LABELS = 65534
KINDS = ("segmentation", "depth")
DEPTH_LEVELS = 64  # ids of depth, from the smallest of an image to its largest
_CHUNK_PIXELS = 1 << 23  # that `majority` sorts at a time


class MapSquare(NamedTuple):
    """The part of a map that belongs to an image's square."""

    values: np.ndarray  # uint16 (R, R): labels with UNLABELLED, or depth from 0 to 65535
    largest: int = -1  # label anywhere in the map, also outside of the square; -1 where there is none
    has_unlabelled: bool = False  # anywhere in the map


def read_label_names(folder: Path) -> tuple[str, ...] | None:
    """Return the names of the labels 0, 1, ... from `classes.json`: a list, or an object with a list `names`.

    None without such a file, or where it holds something else.
    """
    try:
        found = parse_json(read_bytes(folder / "classes.json"))
    except (OSError, ValueError, RecursionError):
        return None
    names = found.get("names") if isinstance(found, dict) else found
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def read_labels(encoded: Encoded, name: str) -> np.ndarray:
    """Decode a label map to uint16 (H, W): palette indices or grey values as stored, UNLABELLED where none.

    Colours that are all grey are taken for grey values.
    """
    with open_image(encoded, name) as image:
        if image.mode in ("RGB", "RGBA") and _is_grey(pixels := np.asarray(image)):
            image = Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
        if image.mode not in ("1", "P", "L", "I", "I;16", "I;16B", "I;16L"):
            raise UnreadableImage(name, f"a label map must be grey or have a palette; this is {image.mode}")
        values = np.asarray(image, np.uint8 if image.mode == "1" else None)
    if values.dtype == np.uint8:
        return np.where(values == 255, np.uint16(UNLABELLED), values)
    if values.min() < 0 or values.max() > UNLABELLED:
        raise UnreadableImage(name, f"labels from {values.min()} to {values.max()}; 0 to 65535 can be read")
    return values.astype(np.uint16)


def _is_grey(pixels: np.ndarray) -> bool:
    """Say whether colours (H, W, 3 or 4) are grey and opaque everywhere."""
    return bool((pixels[..., :3] == pixels[..., :1]).all() and (pixels[..., 3:] == 255).all())


def read_depth(encoded: Encoded, name: str) -> np.ndarray:
    """Decode a depth map to float32 (H, W) from 0, its smallest value, to 1; a constant one is 0."""
    with open_image(encoded, name) as image:
        if image.mode not in ("L", "I", "I;16", "I;16B", "I;16L", "F"):
            raise UnreadableImage(name, f"a depth map must be grey; this is {image.mode}")
        values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise UnreadableImage(name, "depth that is not finite")
    low = values.min()
    return ((values - low) / max(values.max() - low, 1e-8)).astype(np.float32)


def map_square(
    kind: str, encoded: Encoded, name: str, size: tuple[int, int], resolution: int, crop: str
) -> MapSquare:
    """Return the part of a map that belongs to an image's square of `resolution` pixels a side.

    size: width and height of the image, upright. UnreadableImage also where the map has another shape than that.
    """
    values = read_labels(encoded, name) if kind == "segmentation" else read_depth(encoded, name)
    height, width = values.shape
    if not _same_shape(values, size[::-1]):
        raise UnreadableImage(name, f"{width}x{height} pixels do not fit an image of {size[0]}x{size[1]}")
    across, down = width / size[0], height / size[1]
    left, top, right, bottom = square_box(size, crop)
    box = (left * across, top * down, right * across, bottom * down)
    if kind == "segmentation":
        labelled = values[values != UNLABELLED]
        return MapSquare(
            nearest(values, (resolution, resolution), box),
            int(labelled.max()) if labelled.size else -1,
            labelled.size < values.size,
        )
    square = Image.fromarray(values).resize((resolution, resolution), Image.Resampling.BILINEAR, box=box)
    return MapSquare(np.rint(65535 * np.clip(np.asarray(square), 0, 1)).astype(np.uint16))


def _same_shape(values: np.ndarray, size: tuple[int, int]) -> bool:
    """Say whether a map (H, W) has the shape of this height and width, within a pixel of one of its sides."""
    (height, width), (h, w) = values.shape, size
    return abs(width - w * height / h) <= 1 or abs(height - h * width / w) <= 1


def nearest(
    values: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """Resize (H, W) to `size` (height, width) by the pixel that holds each centre; box: left, top, right, bottom."""
    left, top, right, bottom = box or (0, 0, values.shape[1], values.shape[0])

    def centres(first: float, last: float, count: int, most: int) -> np.ndarray:
        places = first + (np.arange(count) + 0.5) * ((last - first) / count)
        return np.clip(np.floor(places + 1e-9), 0, most - 1).astype(np.int64)

    rows = centres(top, bottom, size[0], values.shape[0])
    columns = centres(left, right, size[1], values.shape[1])
    return np.ascontiguousarray(values[rows[:, None], columns])


def to_ids(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Return labels as ids, uint8 where that is enough, else uint16; those that have no label become `num_labels`."""
    dtype = np.uint8 if num_labels <= 255 else np.uint16
    return np.where(labels == UNLABELLED, num_labels, labels).astype(dtype)


def binary_labels(labels: np.ndarray) -> np.ndarray:
    """Return labels of a set that has 0 and UNLABELLED alone as 0 and 1."""
    return (labels == UNLABELLED).astype(np.uint16)


def majority(maps: Any, side: int | Sequence[int]) -> np.ndarray:
    """Return the most frequent label of every cell of a grid, the lower of equals: (N, h, w) of the type of the maps.

    That of a mirrored map is the mirrored one, so that a whole set can be reduced once.

    maps: integers (N, H, W), an array or what is decoded on access. side: cells of the grid's side, or (h, w).
    """
    h, w = (side, side) if isinstance(side, int) else side
    count, height, width = maps.shape
    if height % h or width % w:
        raise ValueError(f"maps of {width}x{height} pixels and a grid of {w}x{h} cells")
    step = max(1, _CHUNK_PIXELS // (height * width))
    parts = [_majority(np.asarray(maps[first : first + step]), h, w) for first in range(0, count, step)]
    return np.concatenate(parts) if parts else np.empty((0, h, w), maps.dtype)


def _majority(maps: np.ndarray, h: int, w: int) -> np.ndarray:
    count, height, width = maps.shape
    cells = maps.reshape(count, h, height // h, w, width // w).transpose(0, 1, 3, 2, 4)
    # (N h w, pixels), equal ones together
    labels = np.sort(cells.reshape(count * h * w, -1), axis=1, kind="stable")
    place = np.arange(labels.shape[1], dtype=np.int32)
    is_first = np.ones(labels.shape, bool)
    is_first[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = place - np.maximum.accumulate(np.where(is_first, place, 0), axis=1)
    # The longest run is the first to reach its length, so that of the lower label among equals.
    winner: np.ndarray = np.take_along_axis(labels, run.argmax(1)[:, None], axis=1)
    return winner.reshape(count, h, w)


# Files that a user names, to generate pictures from.


def read_label_map_file(
    path: Path,
    num_labels: int,
    size: tuple[int, int] | None = None,
    *,
    cell: int = 1,
    colours: NDArray[np.uint8] | None = None,
) -> np.ndarray:
    """Return the ids (H, W) of a map, uint8 or uint16; `num_labels` where there is no label (255, or 65535 of 16 bits).

    Labels are grey values or palette indices as they are stored; of two labels, a map of 0 and 255 alone has both.

    size: height and width; a map of the same shape is brought to it by taking nearest pixels. None keeps the map's own,
        whose sides must be multiples of `cell`.
    colours: (n, 3), of each id. A map that is painted in these alone, exactly, is understood too.

    Raises:
        DataError: one line: no such file, no label map, unknown labels or colours, a size that cannot be used.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; a label map is a PNG whose values are labels")
    try:
        with quiet_pillow():
            labels = None if colours is None else _read_painted_labels(path, num_labels, colours)
            if labels is None:
                labels = read_labels(path, str(path))
    except UnreadableImage as unreadable:
        hint = "; is it a photo?" if "this is RGB" in unreadable.reason else ""
        raise DataError(f"{unreadable}{hint}") from None
    if num_labels == 2 and np.isin(labels, (0, UNLABELLED)).all():
        labels = binary_labels(labels)
    unknown = np.unique(labels[(labels >= num_labels) & (labels != UNLABELLED)])
    if len(unknown):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise DataError(
            f"{path}: unknown labels {', '.join(map(str, unknown[:3]))}{more}; those from 0 to {num_labels - 1} "
            "are known, and 255 is no label (65535 in a map of 16 bits)"
        )
    return to_ids(nearest(labels, _size_to_use(labels, size, cell, path)), num_labels)


def read_depth_file(path: Path, size: tuple[int, int] | None = None, *, cell: int = 1) -> NDArray[np.float32]:
    """Return a depth map (H, W) from 0, its smallest value, to 1; arguments and errors as of `read_label_map_file`."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; a depth map is a grey picture of distances")
    with quiet_pillow():
        depth = read_depth(path, str(path))
    height, width = _size_to_use(depth, size, cell, path)
    return np.asarray(Image.fromarray(depth).resize((width, height), Image.Resampling.BILINEAR)).clip(0, 1)


def _read_painted_labels(path: Path, num_labels: int, colours: NDArray[np.uint8]) -> np.ndarray | None:
    """Return the labels of a map that is painted; None where a palette holds other colours, and for grey."""
    with open_image(path, str(path)) as image:
        if image.mode not in ("RGB", "RGBA", "P"):
            return None
        pixels = np.asarray(image.convert("RGBA")).astype(np.uint32)
        has_palette = image.mode == "P"
    if (pixels[..., 3] < 255).any():
        raise DataError(f"{path}: a label map has no transparent pixels")
    as_number = np.array([1 << 16, 1 << 8, 1], np.uint32)  # one number 0xrrggbb for each colour
    painted, where = np.unique((pixels[..., :3] * as_number).sum(-1, dtype=np.uint32), return_inverse=True)
    is_id = painted[:, None] == (np.asarray(colours, np.uint32) * as_number).sum(-1, dtype=np.uint32)
    if is_id.any(1).all():
        ids = is_id.argmax(1)
        ids[ids == num_labels] = UNLABELLED
        return ids.astype(np.uint16)[where.reshape(pixels.shape[:2])]
    if has_palette or _is_grey(pixels):
        return None
    other = painted[~is_id.any(1)]
    raise DataError(
        f"{path}: no label map: {len(other):,} of its colours, as #{other[0]:06x}, are none of the "
        f"{len(colours)} of this set; is it a photo, or were edges smoothed?"
    )


def _size_to_use(values: np.ndarray, size: tuple[int, int] | None, cell: int, path: Path) -> tuple[int, int]:
    """Return the height and width that a map is brought to."""
    height, width = values.shape
    if size is None:
        if height % cell or width % cell:
            near = [max(cell, round(side / cell) * cell) for side in (width, height)]
            raise DataError(
                f"{path}: {width}x{height} pixels; both sides must be multiples of {cell}, as {near[0]}x{near[1]}"
            )
        return height, width
    if not _same_shape(values, size):
        raise DataError(
            f"{path}: {width}x{height} pixels, and {size[1]}x{size[0]} or the same shape in another size is wanted"
        )
    return size
