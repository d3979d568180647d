"""A painting as SVG: every stroke a `<use>` of a mark of its brush, moved by one matrix and filled with one colour.

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
from contourpy import LineType, contour_generator
from numpy.typing import NDArray

from gtool.io.files import atomic_write
from gtool.strokes.brush import Brush
from gtool.strokes.canvas import Painting, to_pixels
from gtool.strokes.renderer import mark_of, stand_up

OUTLINE_SIZE = (64, 64)  # texels of the picture that outlines are traced on, along and across the bristles
SHADE_SIZE = (16, 32)  # and of the one that shade is traced on
MIN_CORNER = 1e-4  # area of the triangle that a corner of an outline cuts off, in squares of the brush
MIN_SPOT = 1e-3  # area of an island or a hole
MAX_CORNERS = 64  # of one closed line
DARKER = (0.7, 0.35)  # shares of the paint that are in the first and in the second darker tone
INKED = 0.9  # share of the largest mask from which a place shows shade

Field = NDArray[np.float64]  # (n, m), rows along v
Line = NDArray[np.float64]  # (K, 2) u, v: a closed line, its last point joined to its first


@dataclass(frozen=True)
class Mark:
    """A brush mark on the unit square of u and v."""

    paint: list[Line]  # closed lines around the paint, holes the other way round
    tones: list[
        tuple[list[Line], float]
    ]  # darker places, each within the one before; opacity of the black on them
    lightest: float  # shade of the paint under no black


def save_svg(path: Path, painting: Painting, longer: int) -> None:
    """Write a painting as vectors; width, height and viewBox say `longer` pixels for its longer side.

    Raises:
        CheckpointError: the file cannot be written.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        marks = [trace(painting.brush, number) for number in range(painting.brush.marks)]
        file.writelines(_lines(painting, marks, longer))


def _lines(painting: Painting, marks: list[Mark], longer: int) -> Iterator[str]:
    height, width = painting.size(longer)
    (ground,) = hex_colors(np.array([painting.ground]))
    yield (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n<defs>\n'
    )
    for number, mark in enumerate(marks):
        # Opacity of the group: the mark is laid down as a whole, its tones are not seen through each other.
        yield f'<g id="m{number}"{_opacity("opacity", painting.opacity)}>\n'
        if mark.paint:
            yield f'<path d="{_path(mark.paint)}"/>\n'
        for lines, black in mark.tones:
            if lines:
                yield f'<path fill="#000"{_opacity("fill-opacity", black)} d="{_path(lines)}"/>\n'
        yield "</g>\n"
    yield f'</defs>\n<rect width="{width}" height="{height}" fill="{ground}"/>\n'
    # Matrices that put the unit square of u and v where strokes, in pixels, have it.
    geometry = stand_up(to_pixels(painting.shape_params.cpu().double(), longer)).numpy()
    x, y, across, along, theta = geometry.T
    c, s = np.cos(np.pi * theta), np.sin(np.pi * theta)
    a, b, to_x, to_y = across * c, across * s, -along * s, along * c
    matrices = np.stack([a, b, to_x, to_y, x - 0.5 * (a + to_x), y - 0.5 * (b + to_y)], axis=1)
    own = mark_of(painting.shape_params[:, 4], len(marks)).cpu().numpy()
    lightest = np.array([mark.lightest for mark in marks])[own]
    fills = hex_colors(painting.colors.cpu().numpy() * lightest[:, None])
    for matrix, fill, mark_number in zip(matrices.tolist(), fills, own.tolist(), strict=True):
        numbers = " ".join(short(number, 2) for number in matrix)
        yield f'<use xlink:href="#m{mark_number}" fill="{fill}" transform="matrix({numbers})"/>\n'
    yield "</svg>\n"


def _opacity(name: str, value: float) -> str:
    return "" if value >= 1 else f' {name}="{short(value)}"'


def _path(lines: list[Line]) -> str:
    joined = ("L".join(f"{short(u)} {short(v)}" for u, v in line.tolist()) for line in lines)
    return "".join(f"M{points}Z" for points in joined)


def short(number: float, places: int = 3) -> str:
    """Write a number in as few characters as so many decimals allow: 0.50 as .5."""
    text = f"{number:.{places}f}".rstrip("0").rstrip(".")
    text = text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
    return "0" if text in ("", "-", "-0") else text


def hex_colors(colors: Field) -> list[str]:
    """Colours (N, 3) in [0, 1] as SVG writes them."""
    levels = np.rint(np.clip(colors, 0, 1) * 255).astype(int).tolist()
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in levels]


# From the pictures of a brush to lines.


def trace(brush: Brush, number: int = 0) -> Mark:
    """Draw around the paint of one of a brush's marks, bristles along v, and around its darker places."""
    mask, _ = brush.picture(*OUTLINE_SIZE, number)
    paint = _simplify(contours(mask, 0.5 * float(mask.max())))
    mask, shaded = brush.picture(*SHADE_SIZE, number)
    shade = np.where(mask > INKED * mask.max(), shaded / np.maximum(mask, 1e-6), np.inf)
    known = np.sort(shade[np.isfinite(shade)])
    first, second = (known[int(share * (len(known) - 1))] for share in DARKER)
    parts = (known[known > first], known[(known > second) & (known <= first)], known[known <= second])
    light, dark, darkest = (max(1e-3, float(part.mean() if len(part) else first)) for part in parts)
    # Beyond the paint is nothing dark, by so much that lines end within the last dark place.
    beyond = first + 0.3
    field = np.where(np.isfinite(shade), shade, beyond)
    drawn = [_simplify(contours(-field, -bound, -beyond)) for bound in (first, second)]
    black = [1 - dark / light, 1 - darkest / dark]
    whole, *areas = (sum(map(_area, lines)) for lines in (paint, *drawn))
    dark_share, darkest_share = (min(1.0, area / whole) if whole else 0.0 for area in areas)
    mean = 1 - dark_share * black[0] - darkest_share * (1 - black[0]) * black[1]
    return Mark(paint, list(zip(drawn, black, strict=True)), 1 / mean)


def contours(field: Field, level: float, beyond: float = 0.0) -> list[Line]:
    """Return closed lines around the places where a field (n, m) over the unit square is above a level.

    Values stand at the centres of cells, and around the field stands `beyond`, which must not be above the level.
    Lines run clockwise as seen (v down) around what is above, the other way round about holes.
    """
    rows, columns = field.shape
    padded = np.pad(field, 1, constant_values=beyond)
    generator = contour_generator(z=padded, name="serial", line_type=LineType.Separate)
    # Cell i of the padded field has its centre at i - 1/2 cells of the field; the last point repeats the first.
    lines = map(np.asarray, generator.lines(level))
    return [(line[:-1] - 0.5) / np.array([columns, rows]) for line in lines]


def _simplify(lines: list[Line]) -> list[Line]:
    """Leave out small spots, and corners that cut off little (Visvalingam and Whyatt 1993)."""
    kept = []
    for line in lines:
        if abs(_area(line)) < MIN_SPOT:
            continue
        while len(line) > 3:
            before, after = np.roll(line, 1, axis=0) - line, np.roll(line, -1, axis=0) - line
            cut = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) / 2
            least = int(cut.argmin())
            if cut[least] > MIN_CORNER and len(line) <= MAX_CORNERS:
                break
            line = np.delete(line, least, axis=0)
        kept.append(line)
    return kept


def _area(line: Line) -> float:
    """Area within a closed line; negative where it runs anticlockwise."""
    u, v = line.T
    return float((u * np.roll(v, -1) - v * np.roll(u, -1)).sum() / 2)
