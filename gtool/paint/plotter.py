"""A painting for a plotter or a robot: the centre line of every stroke, a layer for every paint, short ways between.

Layers are those of Inkscape, named by the colour of their paint, in the order in which the painting needs them on
average; vpype and plotters take each for a pen. Within a layer lines are drawn in an order, and from an end, that
keep the travel of the lifted pen short: always the nearest end that is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gtool.errors import DataError
from gtool.io.files import atomic_write
from gtool.paint.svg import hex_colors, short
from gtool.strokes.brush import HALF_HEIGHT
from gtool.strokes.canvas import Painting, to_pixels
from gtool.strokes.renderer import stand_up

MOST_LAYERS = 256
NEIGHBOURS = 32  # ends that are looked at for one that is left
Lines = NDArray[np.float64]  # (N, 2, 2): first and last point, x and y


def save_plot(path: Path, painting: Painting, longer: int) -> None:
    """Write centre lines as SVG, `longer` pixels for the longer side.

    Raises:
        DataError: more paints than a plotter has pens.
        CheckpointError: the file cannot be written.
    """
    lines, paints = centre_lines(painting, longer), np.array(hex_colors(painting.colors.cpu().numpy()))
    names, paint = np.unique(paints, return_inverse=True)
    if len(names) > MOST_LAYERS:
        raise DataError(
            f"{path}: {len(names):,} paints; --plotter needs at most {MOST_LAYERS}: add --colors 12"
        )
    turn = np.arange(len(lines))
    layers = sorted(range(len(names)), key=lambda number: turn[paint == number].mean())
    height, width = painting.size(longer)
    with atomic_write(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        file.write(
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape" '
            f'width="{width}px" height="{height}px" viewBox="0 0 {width} {height}">\n'
        )
        for number, layer in enumerate(layers, 1):
            file.write(
                f'<g id="layer{number}" inkscape:groupmode="layer" inkscape:label="{number} {names[layer]}" '
                f'fill="none" stroke="{names[layer]}" stroke-width="1" stroke-linecap="round">\n'
            )
            file.writelines(_paths(short_way(lines[paint == layer])))
            file.write("</g>\n")
        file.write("</svg>\n")


def _paths(lines: Lines) -> Iterator[str]:
    for (x0, y0), (x1, y1) in lines.tolist():
        yield f'<path d="M{short(x0, 2)} {short(y0, 2)}L{short(x1, 2)} {short(y1, 2)}"/>\n'


def centre_lines(painting: Painting, longer: int) -> Lines:
    """Return the line along the bristles of every stroke, in pixels, in painting order."""
    geometry = stand_up(to_pixels(painting.shape_params.cpu().double(), longer)).numpy()
    x, y, across, along, theta = geometry.T
    # The pen has a width of its own: half of the stroke's stays free at both ends.
    half = np.maximum(HALF_HEIGHT * along - 0.5 * across, 0.5)
    way = np.stack([-np.sin(np.pi * theta), np.cos(np.pi * theta)], axis=1) * half[:, None]
    centre = np.stack([x, y], axis=1)
    paper = painting.size(longer)[::-1]  # ends beyond it are moved to its edge
    return np.stack([centre - way, centre + way], axis=1).clip(0, paper)


def short_way(lines: Lines) -> Lines:
    """Order lines, and turn some, so that little lies between the end of one and the beginning of the next."""
    from scipy.spatial import KDTree

    left = np.ones(len(lines), dtype=bool)
    order: list[int] = []
    turned: list[bool] = []
    here = np.zeros(2)
    numbers, tree = np.arange(len(lines)), KDTree(lines.reshape(-1, 2)) if len(lines) else None
    while tree is not None and len(order) < len(lines):
        ends = tree.query(here, k=min(NEIGHBOURS, 2 * len(numbers)))[1]
        found = next((end for end in np.atleast_1d(ends).tolist() if left[numbers[end // 2]]), None)
        if found is None:
            numbers = np.flatnonzero(left)
            tree = KDTree(lines[numbers].reshape(-1, 2))
            continue
        line, end = int(numbers[found // 2]), found % 2
        left[line] = False
        order.append(line)
        turned.append(end == 1)
        here = lines[line, 1 - end]
    ordered = lines[order]
    ordered[turned] = ordered[turned][:, ::-1]
    return ordered


def travel(lines: Lines) -> float:
    """Return how far the lifted pen goes between lines drawn one after the other."""
    return float(np.linalg.norm(lines[1:, 0] - lines[:-1, 1], axis=1).sum())
