"""Means over images with 95 % intervals, by resampling the images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Interval = dict[str, float | None]  # value, low, high; None where no image has a say

RESAMPLES = 1000
LEVELS = (2.5, 97.5)  # percentiles


class Resampler:
    """The same resamples of N images for every number, so that differences are those of paired images."""

    def __init__(self, count: int, seed: int = 0) -> None:
        # RandomState, because NumPy promises that its stream never changes.
        chosen = np.random.RandomState(seed % 2**32).randint(0, count, (RESAMPLES, count))
        cell = np.arange(RESAMPLES)[:, None] * count + chosen
        weights = np.bincount(cell.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count)
        self.weights = weights.astype(np.float64)  # how often each image occurs

    def mean(self, values: NDArray[np.float64]) -> Interval:
        """Return the mean of values (N,), NaN for images that have no say, and its interval."""
        counts = np.isfinite(values)
        if not counts.any():
            return {"value": None, "low": None, "high": None}
        number = self.weights @ counts
        means = (self.weights @ np.where(counts, values, 0))[number > 0] / number[number > 0]
        return _interval(float(values[counts].mean()), means)

    def of_mean(
        self, rows: NDArray[np.float64], function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    ) -> Interval:
        """Return `function` of the mean of rows (N, k), with its interval."""
        means = self.weights @ rows / len(rows)
        return _interval(float(function(rows.mean(0))), function(means))


def _interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(resampled, LEVELS)
    return {"value": value, "low": float(low), "high": float(high)}
