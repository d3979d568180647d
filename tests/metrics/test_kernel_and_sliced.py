"""CMMD and MIND by known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gtool.errors import DataError
from gtool.metrics.cmmd import cmmd
from gtool.metrics.features.collector import Features
from gtool.metrics.mind import mind


def rows(count: int, size: int, seed: int, shift: float = 0.0) -> Features:
    return Features.of(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)) + shift)


def test_mind_of_a_shifted_gaussian_is_three_times_its_squared_length():
    """By m in each of D numbers: along a direction u the distance is (u . m)^2, m^2 in the mean; times 3 D."""
    for shift in (1.0, 3.0):
        found = mind(rows(4000, 64, 11), rows(4000, 64, 22, shift))["mind"]
        assert found == pytest.approx(3 * 64 * shift**2, rel=0.05)


def test_mind_is_zero_of_equal_sets_and_symmetric():
    x, y = rows(300, 32, 1), rows(300, 32, 2, 0.5)
    assert mind(x, x)["mind"] == 0
    assert mind(x, y)["mind"] == mind(y, x)["mind"]


def test_mind_draws_what_torch_fidelity_draws():
    """The value of its metric_mind.py (2026-05) by seed 2020 and 1,000 projections, of unequal sets."""
    assert mind(rows(120, 16, 1), rows(200, 16, 2, 0.3))["mind"] == pytest.approx(7.174501, rel=1e-5)


def test_cmmd_is_the_formula_of_its_authors():
    x, y = rows(50, 8, 1), rows(70, 8, 2, 0.2)
    a, b = (np.asarray(one.rows / one.rows.norm(dim=1, keepdim=True), np.float64) for one in (x, y))

    def kernel(p: np.ndarray, q: np.ndarray) -> float:
        return float(np.exp(-((p[:, None] - q[None]) ** 2).sum(2) / 200).mean())

    expected = 1000 * (kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))
    assert cmmd(x, y)["cmmd"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("metric", [cmmd, mind])
def test_rows_that_are_not_finite_are_refused(metric):
    bad = rows(10, 4, 1)
    bad.all_rows[3, 2] = torch.nan
    with pytest.raises(DataError, match="not finite"):
        metric(bad, rows(10, 4, 2))
