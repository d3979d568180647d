"""The loop that every family of training shares, and no mathematics.

`run_training` is a generator. It calls the family's step and yields a `Tick` now and then; whoever iterates over it
prints, previews, measures and saves between two steps. A plain `for` loop takes the place of callbacks.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gtool.config.schema import TrainRecipe
from gtool.errors import DivergedError
from gtool.runtime.device import use_threads


@dataclass(frozen=True)
class Tick:
    """A moment of a run at which there is something to tell; statistics are means since the one before."""

    images_per_second: float
    stats: dict[str, float]
    is_snapshot: bool
    signum: int | None = None


def run_training(
    step: Callable[[Any], dict[str, Tensor]], state: Any, stop_signal: Callable[[], int | None]
) -> Iterator[Tick]:
    """Train until the kimg or minutes of the recipe are reached or a signal arrives, yielding ticks on the way.

    step: one iteration of the family; updates the networks, `state.nimg` and `state.steps`, returns statistics.
    state: a `gtool.train.state.TrainingState`; changed in place, also by the caller between two ticks.

    Raises:
        DivergedError: a statistic is no longer finite; nothing of this step has been saved.
    """
    train = state.recipe.train
    window = _Window(state)
    # What is left to do beside the shares is too little for threads that wait for each other.
    by_shares = state.in_shares and state.compute.threads > 1
    state.progress = progress(state, train)
    while state.progress < 1.0:
        before = state.nimg
        with use_threads(1) if by_shares else nullcontext():
            window.add(step(state))
        # The slowest clock and any signal of all processes, so that all of them stop at the same step.
        state.seconds, number = state.compute.largest([window.seconds(), float(stop_signal() or 0)])
        signum = int(number) or None
        state.progress = progress(state, train)
        is_snapshot = state.progress >= 1.0 or _crossed(before, state.nimg, train.snapshot_kimg)
        if is_snapshot or signum is not None or _crossed(before, state.nimg, train.tick_kimg):
            yield window.close(is_snapshot, signum)
            # What the caller did between two ticks is part of the time that the user has given.
            state.seconds = window.seconds()
            window = _Window(state)
        if signum is not None:
            return


def progress(state: Any, train: TrainRecipe) -> float:
    """Return the share of a run that is done, by images or by time, whichever is nearer its end."""
    done = state.nimg / round(train.kimg * 1000)
    if train.minutes is not None:
        done = max(done, state.seconds / (60 * train.minutes))
    return min(1.0, done)


def _crossed(before: int, after: int, kimg: float) -> bool:
    return math.floor(after / (kimg * 1000)) > math.floor(before / (kimg * 1000))


class _Window:
    """Sums of the statistics since the last tick; they stay on the device until the tick."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self._start, self._seconds, self._nimg = time.monotonic(), state.seconds, state.nimg
        self._sums: dict[str, Tensor] = {}
        self._counts: Counter[str] = Counter()

    def seconds(self) -> float:
        return float(self._seconds + time.monotonic() - self._start)

    def add(self, stats: dict[str, Tensor]) -> None:
        for name, value in stats.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts.update(stats.keys())

    def close(self, is_snapshot: bool, signum: int | None) -> Tick:
        nimg = self._state.nimg
        stats = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        compute = self._state.compute
        if compute.world_size > 1 and stats:  # each process has those of its share of the batches
            dtype = torch.float32 if compute.device.type == "mps" else torch.float64
            means = torch.tensor(list(stats.values()), dtype=dtype, device=compute.device)
            stats = dict(zip(stats, compute.mean(means).tolist(), strict=True))
        for name, value in stats.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"training diverged at {nimg / 1000:g} kimg: `{name}` is {value}; "
                    "the last saved state is good: lower optim.learning_rate or raise the penalty and resume from it"
                )
        rate = (nimg - self._nimg) / max(time.monotonic() - self._start, 1e-9)
        return Tick(rate, stats, is_snapshot, signum)
