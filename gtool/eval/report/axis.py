"""Axes of the charts of a page: an interval of values, and where to mark it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """An interval of values, where to mark it, and the values as shares of it."""

    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool

    def share(self, value: float) -> float:
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def shows(self, value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not self.is_log)


def axis_of(values: Sequence[float], *, steps: int, is_log: bool = False) -> Axis:
    """Return the interval of the values that can be shown, with at most `steps` + 1 marks if linear."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not is_log)]
    low, high = (min(finite), max(finite)) if finite else (0.1, 1.0)
    if is_log:
        low, high = (low / 1.1, high * 1.1) if low == high else (low, high)
        return Axis(low, high, tuple(_log_ticks(low, high)), True)
    if low == high:
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    step = _round_step((high - low) / steps)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, tuple(number * step for number in range(first, last + 1)), False)


def _round_step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten, not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two values, and 2 and 5 times them where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > 4 else (1, 2, 5)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) >= 2 else [low, high]


def tick_labels(axis: Axis) -> list[str]:
    """Write the ticks of an axis with as many digits as tell them apart."""
    if axis.is_log or len(axis.ticks) < 2:
        return [f"{tick:.3g}" for tick in axis.ticks]
    step = axis.ticks[1] - axis.ticks[0]
    largest = max(abs(tick) for tick in axis.ticks)
    if largest >= 1e6 or step < 1e-4:
        return [f"{tick:.3g}" for tick in axis.ticks]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{tick + 0.0:.{digits}f}" for tick in axis.ticks]
