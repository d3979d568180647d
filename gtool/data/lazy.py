"""Images decoded by threads: in order for the cache; on access, one batch ahead, where it is too small."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from gtool.io.image import UnreadableImage

Input = TypeVar("Input")
Output = TypeVar("Output")
Squares = list[np.ndarray | UnreadableImage]


def count_workers() -> int:
    """Return how many threads to decode with: one a core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(work: Callable[[Input], Output], inputs: Iterable[Input], ahead: int = 0) -> Iterator[Output]:
    """Yield `work(x)` for each input in order, worked on by all cores, with only a few results waiting.

    ahead: results that wait besides, for a taker that takes many at once.
    """
    workers = count_workers()
    waiting: deque[Future[Output]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in inputs:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * workers + ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class LazyImages:
    """Looks like an array (N, ...), of images or maps, and decodes what is indexed.

    `prefetch` starts on those that will be asked for next.
    """

    def __init__(
        self, read: Callable[[list[int]], Squares], kept: np.ndarray, shape: tuple[int, ...], dtype: Any
    ) -> None:
        """Read rows of one shape and type; `kept` says which of the source each of them is."""
        self.shape = (len(kept), *shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(dtype)
        self._read = read
        self._kept = kept
        self._workers = count_workers()
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")
        self._ahead: tuple[bytes, list[Future[Squares]]] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return one row for a number, (n, ...) for a slice or an array of numbers.

        Raises:
            UnreadableImage: an image that could be read before cannot be any more.
        """
        wanted = self._kept[key]
        places = np.atleast_1d(wanted)
        ahead, self._ahead = self._ahead, None
        parts = ahead[1] if ahead and ahead[0] == places.tobytes() else self._start(places)
        images = np.empty((len(places), *self.shape[1:]), self.dtype)
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
        return [self._pool.submit(self._read, block) for block in blocks]
