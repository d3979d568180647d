"""The orders in which the codes of a grid are predicted, as lists of cells.

Taming Transformers, taming/modules/transformer/permuter.py, whose orders they equal where that has them (the released
spirals need even squares, the released z-curve and subsampling powers of two). A cell is its place in the rows of the
grid, i w + j.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def cells_in_order(order: str, height: int, width: int) -> list[int]:
    """Return the h w cells in the order in which they are predicted.

    order: `raster` row by row; `alternate` the same, every other row backwards; `subsample` every other cell of every
    other row first, again and again; `z-curve` by Morton number; `spiral-in` from the last cell up along the border;
    `spiral-out` that backwards; `random` a fixed shuffle.
    """
    size = height * width
    if order.startswith("spiral"):
        cells, grid = [], np.arange(size).reshape(height, width)
        while grid.size:  # the last column upwards, then what is left, turned by a quarter
            cells += grid[::-1, -1].tolist()
            grid = np.rot90(grid[:, :-1], -1)
        return cells if order == "spiral-in" else cells[::-1]
    if order == "random":
        # The generator of the release, whose numbers are the same in every version of numpy.
        return [int(cell) for cell in np.random.RandomState(1).permutation(size)]
    bits = range(max(height, width).bit_length())
    keys: dict[str, Callable[[int, int], tuple[int, ...]]] = {
        "raster": lambda i, j: (i, j),
        "alternate": lambda i, j: (i, -j if i % 2 else j),
        # Parities of row and column, the finest first.
        "subsample": lambda i, j: tuple(part >> bit & 1 for bit in bits for part in (i, j)),
        # The same bits, the coarsest first.
        "z-curve": lambda i, j: tuple(part >> bit & 1 for bit in reversed(bits) for part in (i, j)),
    }
    return sorted(range(size), key=lambda cell: keys[order](*divmod(cell, width)))
