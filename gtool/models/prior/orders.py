"""The orders in which the codes of a grid are predicted, as lists of cells.

Taming Transformers, taming/modules/transformer/permuter.py, whose orders they equal where that has them (the released
spirals need even squares, the released z-curve and subsampling powers of two). A cell is its place in the rows of the
grid, i w + j.
"""

from __future__ import annotations

from collections.abc import Callable

Key = Callable[[int, int], tuple[int, ...]]


def cells_in_order(order: str, height: int, width: int) -> list[int]:
    """Return the h w cells in the order in which they are predicted.

    order: `raster` row by row; `alternate` the same, every other row backwards; `subsample` every other cell of every
    other row first, again and again; `z-curve` by Morton number; `spiral-in` from the last cell up along the border;
    `spiral-out` that backwards; `random` a fixed shuffle.
    """
    size = height * width
    if order == "raster":
        return list(range(size))
    if order == "spiral-in":
        return _inwards(height, width)
    if order == "spiral-out":
        return _inwards(height, width)[::-1]
    if order == "random":
        import numpy as np

        # The generator of the release, whose numbers are the same in every version of numpy.
        return [int(cell) for cell in np.random.RandomState(1).permutation(size)]
    bits = range(max(height, width).bit_length())
    keys: dict[str, Key] = {
        "alternate": lambda i, j: (i, -j if i % 2 else j),
        # Parities of row and column, the finest first.
        "subsample": lambda i, j: tuple(part >> bit & 1 for bit in bits for part in (i, j)),
        # The same bits, the coarsest first.
        "z-curve": lambda i, j: tuple(part >> bit & 1 for bit in reversed(bits) for part in (i, j)),
    }
    return sorted(range(size), key=lambda cell: keys[order](*divmod(cell, width)))


def _inwards(height: int, width: int) -> list[int]:
    """From the lower right corner up, along the top, down, along the bottom, and again inside of that."""
    top, left, bottom, right = 0, 0, height - 1, width - 1
    cells: list[tuple[int, int]] = []
    while top <= bottom and left <= right:
        cells += [(i, right) for i in range(bottom, top - 1, -1)]
        cells += [(top, j) for j in range(right - 1, left - 1, -1)]
        if left < right:
            cells += [(i, left) for i in range(top + 1, bottom + 1)]
        if top < bottom and left < right:
            cells += [(bottom, j) for j in range(left + 1, right)]
        top, left, bottom, right = top + 1, left + 1, bottom - 1, right - 1
    return [i * width + j for i, j in cells]
