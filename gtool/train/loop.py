"""The run shell: what every family of training shares, and no mathematics.

`run_training` is a generator. It steps the engine and yields a `Tick` now and then; the command that iterates over
it prints, previews, measures and saves between two steps. A plain `for` loop takes the place of callbacks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gtool.config.schema import TrainRecipe
from gtool.errors import DivergedError
from gtool.runtime.device import Compute


class Progress(Protocol):
    """The part of an engine's state that the shell reads and writes."""

    nimg: int
    steps: int
    seconds: float  # spent training, over all sessions
    progress: float  # share of the run that is done, 0 to 1: schedules read it


@dataclass(frozen=True)
class Tick:
    """A moment of a run at which there is something to tell."""

    nimg: int
    steps: int
    seconds: float
    progress: float
    images_per_second: float
    stats: dict[str, float]
    is_snapshot: bool
    is_last: bool
    signum: int | None = None


def run_training(
    step: Callable[[Any], dict[str, Tensor]],
    state: Any,
    train: TrainRecipe,
    compute: Compute,
    *,
    stop_signal: Callable[[], int | None],
) -> Iterator[Tick]:
    """Train until the kimg or minutes of the recipe are reached or a signal arrives, yielding ticks on the way.

    Args:
        step: one iteration of the family; updates the networks, `state.nimg` and `state.steps`, returns statistics.
        state: the family's state; changed in place, also by the caller between two ticks.
        train: length and cadence.
        compute: where it runs; all processes stop at the same step.
        stop_signal: the number of a pending signal, or None.

    Raises:
        DivergedError: a statistic is no longer finite; nothing of this step has been saved.
    """
    limit = round(train.kimg * 1000)
    window = _Window(state)
    state.progress = _progress(state, train, limit)
    while state.progress < 1.0:
        before = state.nimg
        window.add(step(state))
        state.seconds, signum = _agree(compute, window.seconds(), stop_signal())
        state.progress = _progress(state, train, limit)
        is_last = state.progress >= 1.0
        is_snapshot = is_last or signum is not None or _crossed(before, state.nimg, train.snapshot_kimg)
        if is_snapshot or _crossed(before, state.nimg, train.tick_kimg):
            yield window.close(is_snapshot=is_snapshot, is_last=is_last, signum=signum)
            # What the caller did between two ticks is part of the time that the user has given.
            state.seconds = window.seconds()
            window = _Window(state)
        if signum is not None:
            return


def _progress(state: Progress, train: TrainRecipe, limit: int) -> float:
    done = state.nimg / limit
    if train.minutes is not None:
        done = max(done, state.seconds / (60 * train.minutes))
    return min(1.0, done)


def _crossed(before: int, after: int, kimg: float) -> bool:
    return math.floor(after / (kimg * 1000)) > math.floor(before / (kimg * 1000))


def _agree(compute: Compute, seconds: float, signum: int | None) -> tuple[float, int | None]:
    """Take the slowest clock and any signal of all processes, so that all of them stop at the same step."""
    if compute.world_size == 1:
        return seconds, signum
    mine = torch.tensor([seconds, float(signum or 0)], dtype=torch.float64, device=compute.device)
    if compute.device.type == "mps":
        mine = mine.float()
    all_of_them = compute.accelerator.gather(mine[None])
    slowest, number = all_of_them.max(dim=0).values.tolist()
    return slowest, int(number) or None


class _Window:
    """Sums of the statistics since the last tick; they stay on the device until the tick."""

    def __init__(self, state: Progress) -> None:
        self._state = state
        self._start = time.monotonic()
        self._seconds = state.seconds
        self._nimg = state.nimg
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def seconds(self) -> float:
        return self._seconds + time.monotonic() - self._start

    def add(self, stats: dict[str, Tensor]) -> None:
        for name, value in stats.items():
            known = self._sums.get(name)
            self._sums[name] = value if known is None else known + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def close(self, *, is_snapshot: bool, is_last: bool, signum: int | None) -> Tick:
        stats = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        for name, value in stats.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"training diverged at {self._state.nimg / 1000:g} kimg: `{name}` is {value}; "
                    "the last saved state is good: lower optim.learning_rate or raise the penalty and resume from it"
                )
        elapsed = max(time.monotonic() - self._start, 1e-9)
        return Tick(
            nimg=self._state.nimg,
            steps=self._state.steps,
            seconds=self._state.seconds,
            progress=self._state.progress,
            images_per_second=(self._state.nimg - self._nimg) / elapsed,
            stats=stats,
            is_snapshot=is_snapshot,
            is_last=is_last,
            signum=signum,
        )
