"""Codes of a set of images, made once by a tokenizer and mapped into memory by every training after it.

An entry holds the codes of all images as they are, and with flips those of all mirrored images after them, as
integers (copies x N, h, w). Its key is a hash of the tokenizer, the images and the versions.
Whoever asks brings the codes; nothing here knows a model. Axis letters: N images, h w grid of codes.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gtool.data.pixel_cache import ImageArrays, Progress
from gtool.io.cache import CacheEntry, write_rows

VERSION = 1  # of the layout


def load_codes(
    image_set: ImageArrays,
    tokenizer: str,
    grid: tuple[int, int],
    codebook_size: int,
    encode: Callable[[], Iterable[Any]],
    *,
    flip: bool = False,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the codes of a set, int16 or int32 (copies x N, h, w), which are made first where they are not there yet.

    tokenizer: a hash of its weights and of whatever else its codes depend on.
    codebook_size: codes are 0 to codebook_size - 1.
    encode: called only where codes have to be made; yields blocks of integers (n, h, w), NumPy arrays or CPU tensors.
    flip: mirrored images too.

    Raises:
        DataError: the cache cannot be written.
        ValueError: blocks of another shape, number or range.
    """
    copies = 2 if flip else 1
    total = copies * len(image_set)
    dtype = np.dtype(np.int16 if codebook_size <= 1 << 15 else np.int32)
    size = f"{grid[0]}x{grid[1]}"
    depends_on = (image_set.fingerprint, tokenizer, size, str(codebook_size), str(copies), str(flip))
    entry = CacheEntry("tokens", "codes", size, (*depends_on, f"layout {VERSION}"))

    def make() -> None:
        entry.require_space(total * grid[0] * grid[1] * dtype.itemsize, "the codes")
        with write_rows(entry.array(), grid, dtype) as rows:
            for block in encode():
                codes = np.asarray(block)
                if codes.shape[1:] != grid or rows.count + len(codes) > total:
                    raise ValueError(f"codes {codes.shape} after {rows.count} of {total} rows of {grid}")
                if codes.size and not 0 <= codes.min() <= codes.max() < codebook_size:
                    raise ValueError(f"codes {codes.min()} to {codes.max()} of a codebook of {codebook_size}")
                rows.append(codes.astype(dtype))
                if progress:
                    progress(rows.count, total)
            if rows.count != total:
                raise ValueError(f"{rows.count} rows of codes, and {total} expected")

    return entry.get(lambda: entry.open_array((total, *grid), dtype), make)
