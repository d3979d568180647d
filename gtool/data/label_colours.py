"""Label maps in colours: a fixed colour for each label, and a legend.

A set may bring the colours of its first labels; the others are chosen far from all that came before in OKLab
(Ottosson 2020, a space in which equal steps look about equal), so that maps of 150 labels stay readable and a label
has the same colour in every picture. No label is grey.

N maps, H W pixels, L labels.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from gtool.data.synthetic.scenes import CLASS_COLOURS
from gtool.io.pictures import SUPERSAMPLING, Pixels, canvas, finish, width_of, write

NO_LABEL = (128, 128, 128)
DISTINCT = 400  # colours after which they begin again
_STEPS = 16  # of each of red, green and blue, to choose from
_SWATCH, _LINE, _GAP = 12, 20, 14  # of the legend, in pixels


def palette(num_labels: int, colours: Sequence[tuple[int, int, int]] = ()) -> Pixels:
    """Return the colour of each id, uint8 (num_labels + 1, 3); the last is grey, for what has no label.

    colours: of the first labels, where the set has its own.
    """
    made = _far_apart(tuple(colours), min(max(num_labels, len(colours)), DISTINCT + len(colours)))
    repeated = made[np.arange(num_labels) % len(made)] if num_labels else made[:0]
    return np.concatenate([repeated, np.array([NO_LABEL], np.uint8)])


def colours_of(dataset: str, num_labels: int | None) -> Pixels:
    """Return the palette of a data set's labels, uint8 (num_labels + 1, 3): the built-in scenes have their own."""
    return palette(num_labels or 1, CLASS_COLOURS if dataset == "scenes" else ())


@cache
def _far_apart(first: tuple[tuple[int, int, int], ...], count: int) -> Pixels:
    """Return `first` and then, one by one, the colour that is farthest from all before it."""
    levels = np.linspace(0, 255, _STEPS).round()
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    places = _oklab(candidates)
    taken = [(0, 0, 0), (255, 255, 255), NO_LABEL, *first]
    away = np.linalg.norm(places[:, None] - _oklab(np.array(taken, float)), axis=2).min(1)
    chosen = [np.array(colour, float) for colour in first]
    while len(chosen) < count:
        best = int(away.argmax())
        chosen.append(candidates[best])
        away = np.minimum(away, np.linalg.norm(places - places[best], axis=1))
    return np.array(chosen).reshape(-1, 3).astype(np.uint8)


def _oklab(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring sRGB (N, 3) in 0..255 to OKLab."""
    share = srgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ cones.T) @ lab.T


def colour_maps(maps: NDArray[np.integer], colours: Pixels) -> Pixels:
    """Return ids (..., H, W) as pictures, uint8 (..., 3, H, W); colours: (L + 1, 3) of `palette`."""
    return np.ascontiguousarray(np.moveaxis(colours[np.asarray(maps)], -1, -3))


def legend(maps: NDArray[np.integer], colours: Pixels, names: Sequence[str] | None, width: int) -> Pixels:
    """Return the colours and names of the labels that are in some maps, in lines of this width: uint8 (H, width, 3)."""
    present = np.unique(maps).tolist()
    known = dict(enumerate(names or ())) | {len(colours) - 1: "no label"}
    words = [(label, known.get(label, f"label {label}")) for label in present]
    measure = ImageDraw.Draw(canvas(1, 1))
    places, x, line = [], 0.0, 0
    for label, word in words:
        needed = _SWATCH + 5 + width_of(measure, word) + _GAP
        if x and x + needed > width:
            x, line = 0.0, line + 1
        places.append((label, word, x, line))
        x += needed
    drawn = canvas(width, (line + 1) * _LINE)
    pen = ImageDraw.Draw(drawn)
    for label, word, x, line in places:
        top = line * _LINE + (_LINE - _SWATCH) / 2
        box = [SUPERSAMPLING * edge for edge in (x, top, x + _SWATCH, top + _SWATCH)]
        pen.rectangle(box, fill=tuple(int(value) for value in colours[label]))
        write(pen, (x + _SWATCH + 5, line * _LINE + _LINE / 2), word, "lm")
    return finish(drawn)
