"""Work on images by all cores, in order: decoding and hashing leave Python's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Input = TypeVar("Input")
Output = TypeVar("Output")


def count_workers() -> int:
    """Return how many threads to decode with: one a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
