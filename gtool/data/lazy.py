"""Images decoded by threads: in order for the cache; on access, one batch ahead, where it is too small."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from gtool.data.pixels import UnreadableImage
from gtool.data.sources import Source

Input = TypeVar("Input")
Output = TypeVar("Output")
Squares = list[np.ndarray | UnreadableImage]


def count_workers() -> int:
    """Return how many threads to decode with: one a core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(work: Callable[[Input], Output], inputs: Iterable[Input]) -> Iterator[Output]:
    """Yield `work(x)` for each input in order, worked on by all cores, with only a few results waiting."""
    workers = count_workers()
    waiting: deque[Future[Output]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in inputs:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class LazyImages:
    """Looks like a uint8 array (N, 3, R, R) and decodes what is indexed.

    `prefetch` starts on images that will be asked for next.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, source: Source, kept: np.ndarray, resolution: int, crop: str) -> None:
        self.shape = (len(kept), 3, resolution, resolution)
        self._source = source
        self._kept = kept  # index in the source of each image
        self._crop = crop
        self._workers = count_workers()
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")
        self._ahead: tuple[bytes, list[Future[Squares]]] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return (3, R, R) for a number, (n, 3, R, R) for a slice or an array of numbers.

        Raises:
            UnreadableImage: an image that could be read before cannot be any more.
        """
        wanted = self._kept[key]
        places = np.atleast_1d(wanted)
        ahead, self._ahead = self._ahead, None
        parts = ahead[1] if ahead and ahead[0] == places.tobytes() else self._start(places)
        images = np.empty((len(places), *self.shape[1:]), np.uint8)
        row = 0
        for part in parts:
            for square in part.result():
                if isinstance(square, UnreadableImage):
                    raise square
                images[row] = square
                row += 1
        return images if np.ndim(wanted) else images[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def prefetch(self, indices: np.ndarray) -> None:
        """Decode these images (n,) in the background; the next access for exactly them finds them ready."""
        places = self._kept[indices]
        self._ahead = (places.tobytes(), self._start(places))

    def _start(self, places: np.ndarray) -> list[Future[Squares]]:
        size = max(1, -(-len(places) // (2 * self._workers)))
        blocks = (places[start : start + size].tolist() for start in range(0, len(places), size))
        read, (resolution, crop) = self._source.read_squares, (self.shape[-1], self._crop)
        return [self._pool.submit(read, block, resolution, crop) for block in blocks]
