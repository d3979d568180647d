"""Attention as pictures: which component each pixel attends to, and how much to each of them.

Component j has the same colour and number, counted from 0, in every image, layer and picture. Hard attention
is the likeliest component in its colour over the image's brightness; soft attention is grey, black for 0 and
white for 1, brighter in between than in proportion so that attention shared by many can be seen.

Images are uint8 (3, R, R), maps floats (k, h, w) that sum to 1 over k; sheets are uint8 (H, W, 3).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from gtool.io.pictures import CELLS, Column, Pixels, Row, cell_side, fit, sheet

# The first seven and a grey after Okabe and Ito (2008), for every kind of colour vision; each further one as far
# from all before it as can be for normal, protan and deutan eyes (Machado et al. 2009, distances in CIELAB).
_RGB = bytes.fromhex(
    "0072b2 d55e00 009e73 cc79a7 e69f00 56b4e9 f0e442 555555 0000ff 7766ff 00ff99 "
    "eedddd 773311 880077 bbaa55 5500bb 7799ff cc4444 3344aa ffccff ff8899 99ee66 "
    "880033 22bbcc 3344ff aa4488 117733 77aa66 aaeebb 9933cc 009911 bb55cc"
)
COLOURS = tuple(f"#{_RGB[i : i + 3].hex()}" for i in range(0, len(_RGB), 3))
TINT = 0.72  # share of a component's colour in hard attention; the rest is the image's brightness
BRIGHTENED = 0.5  # exponent of soft attention
NOTE = "components: black 0, white 1"


def layers_sheet(image: Any, maps: Mapping[str, Any], *, title: str = "") -> Pixels:
    """Show all layers and heads for one image, a row each: hard attention, every component.

    image: uint8 (3, R, R). maps: layer -> (heads, k, h, w).
    """
    image = np.asarray(image)
    count = np.asarray(next(iter(maps.values()))).shape[1]
    cell = cell_side(2 + count)
    rows: list[Row] = []
    for layer, all_heads in maps.items():
        for head, own in enumerate(np.asarray(all_heads, np.float32)):
            shown = None if rows else fit(image, cell)
            label = f"layer {layer}" + (f"\nhead {head}" if len(all_heads) > 1 else "")
            hard = fit(paint_labels(image, hard_labels(own, image.shape[-1])), cell)
            soft = (fit(soft_grey(one, image.shape[-1]), cell) for one in own)
            rows.append(Row(label, [shown, hard, *soft]))
    numbered = [Column(str(number), COLOURS[number % len(COLOURS)]) for number in range(count)]
    return sheet(rows, [Column("image"), Column("strongest"), *numbered], cell, title, NOTE)


def score_sheet(
    images: Any, objects: Any, maps: Any, *, clusters: Any, cells: Any, layer: str, title: str = ""
) -> Pixels:
    """Show what the scores compare, a row for each image: objects, attention, k-means and grid.

    images: uint8 (N, 3, R, R). objects: ids (N, R, R), 0 ground, shown without colour. maps: (N, k, h, w) of
    the layer named. clusters: (N, R, R) of k-means. cells: (R, R) of the grid.
    """
    images, cell = np.asarray(images), CELLS[-1]
    side = images.shape[-1]
    rows = []
    for number, image in enumerate(images):
        partitions = (
            np.asarray(objects[number], np.int64) - 1,
            hard_labels(np.asarray(maps[number], np.float32), side),
            np.asarray(clusters[number]),
            np.asarray(cells),
        )
        painted = (paint_labels(image, labels) for labels in partitions)
        rows.append(Row(f"image {number}", [fit(image, cell), *(fit(picture, cell) for picture in painted)]))
    columns = ("image", "objects", f"layer {layer}", "k-means", "grid")
    return sheet(rows, [Column(name) for name in columns], cell, title)


def paint_labels(image: Pixels, labels: np.ndarray) -> Pixels:
    """Colour the pixels of an image by labels (R, R); -1 keeps the image's grey. Returns (3, R, R)."""
    grey = np.tensordot(np.array([0.299, 0.587, 0.114]), image, 1)[None]
    colours = palette()[labels % len(COLOURS)].transpose(2, 0, 1)
    tint = np.where(labels < 0, 0, TINT)
    return np.rint(tint * colours + (1 - tint) * grey).astype(np.uint8)


def hard_labels(maps: np.ndarray, resolution: int) -> np.ndarray:
    """Return the likeliest component (R, R) of maps (k, h, w), brought to image size first, as for scores."""
    return np.stack([_resized(one, resolution) for one in maps]).argmax(0)


def soft_grey(one: np.ndarray, resolution: int) -> Pixels:
    """Return attention to one component (h, w) as a grey image (3, R, R)."""
    share = np.clip(_resized(one, resolution), 0, 1) ** BRIGHTENED
    return np.rint(255 * share).astype(np.uint8)[None].repeat(3, axis=0)


def palette() -> np.ndarray:
    """Return the colours of components 0 to 31, (32, 3) in 0..255."""
    return np.frombuffer(_RGB, np.uint8).reshape(-1, 3).astype(np.int64)


def _resized(one: np.ndarray, resolution: int) -> np.ndarray:
    small = Image.fromarray(one.astype(np.float32))
    return np.asarray(small.resize((resolution, resolution), Image.Resampling.BILINEAR))
