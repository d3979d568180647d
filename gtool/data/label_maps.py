"""Label maps and depth maps beside images: from what is stored to squares, and to one label for each cell of a grid.

One rule for all sets: ids 0 to num_labels - 1 are labels as they are stored, and what has no label has the id
`num_labels`, one more than the last; so there are num_labels + 1 ids. Stored without a label is 255 in maps of 8 bits
and 65535 in maps of 16. (COCO's loaders add 1 instead, so that 0 is without label; stored values and names then no
longer agree, and sets without such pixels need another rule.)

A map has the crop of its image. Labels are resized by taking the nearest pixel, never mixed: the mean of the labels 3
and 5 is no 4. Depth is a quantity and is averaged; each map is scaled by its own smallest and largest value.

Axis letters: N images, H W pixels, R pixels of a square's side, h w grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gtool.io.image import Encoded, UnreadableImage, open_image, read_values, square_box

VERSION = 1  # of the maps that come out: raised when any of them changes
UNLABELLED = 65535  # in squares of labels before they become ids
MAX_LABELS = 65534
KINDS = ("segmentation", "depth")
_CHUNK_PIXELS = 1 << 23  # that `majority` sorts at a time


class MapSquare(NamedTuple):
    """The part of a map that belongs to an image's square."""

    values: np.ndarray  # uint16 (R, R): labels with UNLABELLED, or depth from 0 to 65535
    largest: int = -1  # label anywhere in the map, also outside of the square; -1 where there is none


def read_labels(encoded: Encoded, name: str) -> np.ndarray:
    """Decode a label map to uint16 (H, W): palette indices or grey values as stored, UNLABELLED where none.

    Raises:
        UnreadableImage: damaged, a colour picture, or values that are no labels.
    """
    values = read_values(encoded, name)
    if values.dtype == np.uint8:
        return np.where(values == 255, np.uint16(UNLABELLED), values)
    if values.min() < 0 or values.max() > UNLABELLED:
        raise UnreadableImage(name, f"labels from {values.min()} to {values.max()}; 0 to 65535 can be read")
    return values.astype(np.uint16)


def read_depth(encoded: Encoded, name: str) -> np.ndarray:
    """Decode a depth map to float32 (H, W) from 0, its smallest value, to 1; a constant one is 0.

    Raises:
        UnreadableImage: damaged, a colour picture, or not finite.
    """
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
    """Return the part of a map that belongs to an image's square.

    Args:
        kind: `segmentation` or `depth`.
        encoded: the map.
        name: what to call it in an error.
        size: width and height of the image, upright.
        resolution: R.
        crop: as in `to_square`.

    Raises:
        UnreadableImage: also where the map has another shape than its image.
    """
    values = read_labels(encoded, name) if kind == "segmentation" else read_depth(encoded, name)
    height, width = values.shape
    if abs(width - size[0] * height / size[1]) > 1 and abs(height - size[1] * width / size[0]) > 1:
        raise UnreadableImage(name, f"{width}x{height} pixels do not fit an image of {size[0]}x{size[1]}")
    across, down = width / size[0], height / size[1]
    left, top, right, bottom = square_box(size, crop)
    box = (left * across, top * down, right * across, bottom * down)
    if kind == "segmentation":
        return MapSquare(nearest(values, (resolution, resolution), box), _largest(values))
    square = Image.fromarray(values).resize((resolution, resolution), Image.Resampling.BILINEAR, box=box)
    return MapSquare(np.rint(65535 * np.clip(np.asarray(square), 0, 1)).astype(np.uint16))


def nearest(
    values: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """Resize (H, W) to `size` (height, width) by the pixel that holds each centre; box: left, top, right, bottom."""
    left, top, right, bottom = box or (0, 0, values.shape[1], values.shape[0])
    rows = _centres(top, bottom, size[0], values.shape[0])
    columns = _centres(left, right, size[1], values.shape[1])
    return np.ascontiguousarray(values[rows[:, None], columns])


def _centres(first: float, last: float, count: int, most: int) -> np.ndarray:
    places = first + (np.arange(count) + 0.5) * ((last - first) / count)
    return np.clip(np.floor(places + 1e-9), 0, most - 1).astype(np.int64)


def _largest(labels: np.ndarray) -> int:
    return int(labels.max(initial=0, where=labels != UNLABELLED)) if (labels != UNLABELLED).any() else -1


def ids_type(num_labels: int) -> type[np.uint8] | type[np.uint16]:
    """Return the smallest type that holds the ids 0 to num_labels."""
    return np.uint8 if num_labels <= 255 else np.uint16


def to_ids(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Return labels, with UNLABELLED, as ids; those that have no label become `num_labels`."""
    return np.where(labels == UNLABELLED, num_labels, labels).astype(ids_type(num_labels))


def majority(maps: Any, side: int | Sequence[int]) -> np.ndarray:
    """Return the most frequent label of every cell of a grid, the lower of equals.

    That of a mirrored map is the mirrored one, so that a whole set can be reduced once.

    Args:
        maps: integers (N, H, W): an array or what is decoded on access; small types are sorted fastest.
        side: cells of the grid's side, or (h, w); they divide H and W.

    Returns:
        (N, h, w) of the type of the maps.
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
    labels = np.sort(
        cells.reshape(count * h * w, -1), axis=1, kind="stable"
    )  # (N h w, pixels), equal ones together
    place = np.arange(labels.shape[1], dtype=np.int32)
    is_first = np.ones(labels.shape, bool)
    is_first[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = place - np.maximum.accumulate(np.where(is_first, place, 0), axis=1)
    # The longest run is the first to reach its length, so that of the lower label among equals.
    winner: np.ndarray = np.take_along_axis(labels, run.argmax(1)[:, None], axis=1)
    return winner.reshape(count, h, w)
