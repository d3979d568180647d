"""A painting as SVG: every stroke a `<use>` of one mark, moved by one matrix and filled with one colour.

A mark is drawn on the unit square of the renderer's u and v (gtool.strokes.renderer) and taken from the brush's own
pictures: the outline of its mask, and over it the places where its shade is darker, in two steps of translucent
black. Black over a colour multiplies it, as shade does, so the fill is the stroke's colour times the lightest
tone, and a mark has on average the stroke's colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gtool.io.files import atomic_write
from gtool.strokes.brush import SMALLEST, Brush
from gtool.strokes.canvas import Painting, to_pixels
from gtool.strokes.renderer import stand_up

OUTLINE_SIDE = 64  # texels a side of the picture that outlines are traced on
SHADE_SIZE = (16, 32)  # and shade: texels along and across the bristles
FINEST_CORNER = 1e-4  # area of the triangle that a corner of an outline cuts off, in squares of the brush
SMALLEST_SPOT = 1e-3  # area of an island or a hole
MOST_CORNERS = 64  # of one closed line
DARKER = (0.7, 0.35)  # shares of the paint that are in the first and in the second darker tone
INKED = 0.9  # mask from which a place shows shade
NAME = "m"  # of the mark
PLACES = 3  # decimals of the marks' own coordinates
PIXEL_PLACES = 2  # and of strokes, in pixels

Field = NDArray[np.float64]  # (n, m), rows along v
Side = tuple[tuple[int, int], tuple[int, int]]  # two neighbouring values, below and above the level
Line = NDArray[np.float64]  # (K, 2) u, v: a closed line, its last point joined to its first


@dataclass(frozen=True)
class Mark:
    """A brush mark on the unit square of u and v.

    paint: closed lines around the paint, holes the other way round.
    tones: darker places and the opacity of the black over them; each within the one before.
    lightest: shade of the paint under no black.
    """

    paint: list[Line]
    tones: list[tuple[list[Line], float]]
    lightest: float


def save_svg(path: Path, painting: Painting, longer: int) -> None:
    """Write a painting as vectors.

    Args:
        path: where to.
        painting: what.
        longer: pixels of the longer side that width, height and viewBox say.

    Raises:
        CheckpointError: the file cannot be written.
    """
    mark = trace(painting.brush)
    with atomic_write(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        file.writelines(_lines(painting, mark, longer))


def _lines(painting: Painting, mark: Mark, longer: int) -> Iterator[str]:
    height, width = painting.size(longer)
    (ground,) = _hex(np.array([painting.ground]))
    yield (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n<defs>\n'
    )
    yield _symbol(mark, painting.opacity)
    yield f'</defs>\n<rect width="{width}" height="{height}" fill="{ground}"/>\n'
    geometry = stand_up(to_pixels(painting.shape_params.cpu().double(), longer)).numpy()
    fills = _hex(painting.colors.cpu().numpy() * mark.lightest)
    for matrix, fill in zip(_matrices(geometry).tolist(), fills, strict=True):
        numbers = " ".join(_short(number, PIXEL_PLACES) for number in matrix)
        yield f'<use xlink:href="#{NAME}" fill="{fill}" transform="matrix({numbers})"/>\n'
    yield "</svg>\n"


def _matrices(geometry: Field) -> Field:
    """SVG matrices (N, 6) that put the unit square of u and v where strokes (N, 5), in pixels, have it."""
    x, y, width, height, theta = geometry.T
    c, s = np.cos(np.pi * theta), np.sin(np.pi * theta)
    a, b, to_x, to_y = width * c, width * s, -height * s, height * c
    return np.stack([a, b, to_x, to_y, x - 0.5 * (a + to_x), y - 0.5 * (b + to_y)], axis=1)


def _symbol(mark: Mark, opacity: float) -> str:
    # Opacity of the group: the mark is laid down as a whole, its tones are not seen through each other.
    paths = [f'<path d="{_path(mark.paint)}"/>\n'] if mark.paint else []
    paths += [
        f'<path fill="#000"{_opacity("fill-opacity", black)} d="{_path(lines)}"/>\n'
        for lines, black in mark.tones
        if lines
    ]
    return f'<g id="{NAME}"{_opacity("opacity", opacity)}>\n{"".join(paths)}</g>\n'


def _opacity(name: str, value: float) -> str:
    return "" if value >= 1 else f' {name}="{_short(value, PLACES)}"'


def _path(lines: list[Line]) -> str:
    def points(line: Line) -> str:
        return "L".join(f"{_short(u, PLACES)} {_short(v, PLACES)}" for u, v in line.tolist())

    return "".join(f"M{points(line)}Z" for line in lines)


def _short(number: float, places: int) -> str:
    """Write a number in as few characters as so many decimals allow."""
    text = f"{number:.{places}f}".rstrip("0").rstrip(".")
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    if digits.startswith("0."):
        digits = digits[1:]
    return "0" if digits in ("", "0") else sign + digits


def _hex(colors: Field) -> list[str]:
    """Colours (N, 3) as SVG writes them."""
    levels = np.rint(np.clip(colors, 0, 1) * 255).astype(int).tolist()
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in levels]


# From the pictures of a brush to lines.


def trace(brush: Brush) -> Mark:
    """Draw around the paint of a brush, bristles along v, and around its darker places."""
    mask, _ = _picture(brush, OUTLINE_SIDE, OUTLINE_SIDE)
    paint = _simple(contours(mask, 0.5 * float(mask.max())))
    return _mark(paint, *_picture(brush, *SHADE_SIZE))


def _mark(paint: list[Line], mask: Field, shaded: Field) -> Mark:
    """Add to the paint the places where shade is darker."""
    shade = np.where(mask > INKED * mask.max(), shaded / np.maximum(mask, 1e-6), np.inf)
    known = np.sort(shade[np.isfinite(shade)])
    first, second = (known[int(share * (len(known) - 1))] for share in DARKER)
    parts = (known[known > first], known[(known > second) & (known <= first)], known[known <= second])
    light, dark, darkest = (max(1e-3, float(part.mean() if len(part) else first)) for part in parts)
    # Beyond the paint is nothing dark, by so much that lines end within the last dark place.
    beyond = first + 0.3
    field = np.where(np.isfinite(shade), shade, beyond)
    drawn = [_simple(contours(-field, -bound, -beyond)) for bound in (first, second)]
    black = [1 - dark / light, 1 - darkest / dark]
    whole, *areas = (sum(map(_area, lines)) for lines in (paint, *drawn))
    dark_share, darkest_share = (min(1.0, area / whole) if whole else 0.0 for area in areas)
    mean = 1 - dark_share * black[0] - darkest_share * (1 - black[0]) * black[1]
    return Mark(paint, list(zip(drawn, black, strict=True)), 1 / mean)


def _picture(brush: Brush, height: int, width: int) -> tuple[Field, Field]:
    """Mask and mask times shade (height, width) of a brush, bristles along v."""
    column, row = ((side // SMALLEST).bit_length() - 1 for side in (width, height))
    left, top = int(brush.corners[column]), int(brush.corners[row])
    cut = brush.atlas[0, :, top : top + height, left : left + width].cpu().numpy().astype(np.float64)
    return cut[0], cut[1]


def contours(field: Field, level: float, beyond: float = 0.0) -> list[Line]:
    """Return closed lines around the places where a field (n, m) over the unit square is above a level.

    Marching squares: values stand at the centres of cells, and around the field stands `beyond`, which must not be
    above the level. Lines run clockwise as seen (v down) around what is above, the other way round about holes.
    """
    rows, columns = field.shape
    padded = np.pad(field, 1, constant_values=beyond)
    above = padded > level
    sides: dict[Side, Side] = {}  # from where a line enters a square of four values to where it leaves
    squares = above[:-1, :-1].astype(int) + above[1:, :-1] + above[:-1, 1:] + above[1:, 1:]
    for i, j in np.argwhere((squares > 0) & (squares < 4)).tolist():
        around = [(i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j)]  # clockwise
        for turn in range(4):
            one, two, three, four = around[turn:] + around[:turn]
            if above[two] and not above[one]:
                # Up to the first value after `two` that is below; the sides of a saddle stay apart.
                leave = next(k for k in ((two, three), (three, four), (four, one)) if not above[k[1]])
                sides[(leave[1], leave[0])] = (one, two)
    lines = []
    while sides:
        start = side = next(iter(sides))
        points = []
        while side in sides:
            low, high = (np.array(place) for place in side)
            share = (level - padded[side[0]]) / (padded[side[1]] - padded[side[0]])
            points.append(low + share * (high - low))
            side = sides.pop(side)
        assert side == start
        # Cell i of the padded field has its centre at i - 1/2 cells of the field.
        lines.append(((np.array(points) - 0.5) / (rows, columns))[:, ::-1])
    return lines


def _simple(lines: list[Line]) -> list[Line]:
    """Leave out small spots, and corners that cut off little (Visvalingam's rule)."""
    kept = []
    for line in lines:
        if abs(_area(line)) < SMALLEST_SPOT:
            continue
        while len(line) > 3:
            before, after = np.roll(line, 1, axis=0) - line, np.roll(line, -1, axis=0) - line
            cut = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) / 2
            least = int(cut.argmin())
            if cut[least] > FINEST_CORNER and len(line) <= MOST_CORNERS:
                break
            line = np.delete(line, least, axis=0)
        kept.append(line)
    return kept


def _area(line: Line) -> float:
    """Area within a closed line; negative where it runs anticlockwise."""
    u, v = line.T
    return float((u * np.roll(v, -1) - v * np.roll(u, -1)).sum() / 2)
