"""Work of several processes: each takes its share of the images, the main one adds up what all have found."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from gtool.errors import GToolError
from gtool.runtime.device import Compute

Found = TypeVar("Found")


def share_of(count: int, compute: Compute, batch_size: int, grain: int = 1) -> tuple[int, int]:
    """Return the first image of this process and the one after its last; shares begin at multiples of `grain`.

    Shares are whole batches where there is one for every process: then the forwards are those of one process, bit
    for bit.
    """
    rank, size = compute.rank, compute.world_size
    grain = math.lcm(grain, batch_size if count >= size * batch_size else 1)
    start, stop = (count if cut == size else count * cut // size // grain * grain for cut in (rank, rank + 1))
    return start, stop


def gather(work: Callable[[], Found], compute: Compute) -> list[Found]:
    """Do the work of every process; return what each has found, in the order of their ranks.

    Raises:
        GToolError: of any process, in all of them; the main one reports it.
    """
    failure: GToolError | None = None
    found: Found | None = None
    try:
        found = work()
    except GToolError as failed:
        failure = failed
    shares = compute.gather((found, failure))
    for _, problem in shares:
        if problem is not None:
            raise problem
    return [share for share, _ in shares]
