"""One score from several processes of one machine: each takes its share, the main one adds up and reports.

An error of any process ends all of them, and the main one says it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from gtool.errors import GToolError

if TYPE_CHECKING:
    from torch import Tensor

    from gtool.eval.features import Space
    from gtool.eval.image_sets import Candidate
    from gtool.eval.scores import Scorer
    from gtool.metrics.features.collector import FeatureCollector, Features
    from gtool.runtime.device import Compute

WAIT, TAKE, DONE = "wait", "take", "done"  # what the main process tells the others of the reference


def take_together(scorer: Scorer, fake: Candidate, name: str, compute: Compute) -> None:
    """Take all images: each process its share; the main process then holds what all have found.

    Raises:
        GToolError: of any process, in the main one.
    """
    if compute.world_size == 1:
        return scorer.take(fake, name)

    def work() -> dict[str, Tensor]:
        import torch

        start, stop = share_of(fake.count, compute, scorer.request.batch_size, getattr(fake, "grain", 1))
        scorer.take(fake.part(start, stop), name, torch.arange(start, stop))
        return {} if compute.is_main else scorer.partial()

    for share in _exchange(work, compute):
        if share and compute.is_main:
            scorer.absorb(share)
    return None


def share_of(count: int, compute: Compute, batch_size: int, grain: int = 1) -> tuple[int, int]:
    """Return the first image of this process and the one after its last; shares begin at multiples of `grain`.

    Shares are whole batches where there is one for every process: then the forwards are those of one process, bit
    for bit.
    """
    rank, size = compute.rank, compute.world_size
    grain = math.lcm(grain, batch_size if count >= size * batch_size else 1)
    cuts = [count if cut == size else count * cut // size // grain * grain for cut in (rank, rank + 1)]
    return cuts[0], cuts[1]


def _exchange(work: Callable[[], dict[str, Tensor]], compute: Compute) -> list[dict[str, Tensor]]:
    """Do the work of every process; return what each has found.

    Raises:
        GToolError: of any process, in all of them; the main one reports it.
    """
    failure: GToolError | None = None
    found: dict[str, Tensor] = {}
    try:
        found = work()
    except GToolError as failed:
        failure = failed
    shares = compute.gather((found, failure))
    for _, problem in shares:
        if problem is not None:
            raise problem
    return [share for share, _ in shares]


def share_reference(scorer: Scorer, compute: Compute) -> None:
    """Take the features of the reference where the cache has none: each process its share, the main one keeps them.

    The main process alone looks into the cache and holds its lock, while the others take their shares; where another
    command holds that lock, it tells the others to wait, again and again, so that no exchange runs into its time limit.

    Raises:
        GToolError: of any process, in all of them.
    """
    if compute.world_size == 1:
        return
    for space in scorer.comparing:
        if compute.is_main:
            _lead(scorer, space, compute)
        else:
            _follow(scorer, space, compute)


def _lead(scorer: Scorer, space: Space, compute: Compute) -> None:
    taken = False

    def build() -> Features:
        nonlocal taken
        taken = True
        compute.share(TAKE)
        return _take_reference(scorer, space, compute).features()

    space.reference_features(
        scorer.real, scorer.request.batch_size, build, waiting=lambda: compute.share(WAIT)
    )
    if not taken:
        compute.share(DONE)


def _follow(scorer: Scorer, space: Space, compute: Compute) -> None:
    while (word := compute.share(None)) == WAIT:
        pass
    if word == TAKE:
        _take_reference(scorer, space, compute)


def _take_reference(scorer: Scorer, space: Space, compute: Compute) -> FeatureCollector:
    """Take this process's share; return a collector that holds all shares in the main process."""
    batch_size, count = scorer.request.batch_size, scorer.real.count
    start, stop = share_of(count, compute, batch_size)
    collectors: list[FeatureCollector] = []

    def work() -> dict[str, Tensor]:
        collectors.append(space.take_reference(scorer.real, batch_size, start, stop))
        return {} if compute.is_main else collectors[0].tensors()

    for share in _exchange(work, compute):
        if share and compute.is_main:
            collectors[0].absorb(share)
    return collectors[0]
