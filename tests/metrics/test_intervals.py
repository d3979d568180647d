"""Intervals of scores: how often they hold a known truth, and what they are made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gtool.metrics.cmmd import cmmd
from gtool.metrics.features.collector import Features
from gtool.metrics.fid import fid
from gtool.metrics.frechet import Moments, influence, influence_of_rows
from gtool.metrics.intervals import with_interval
from gtool.metrics.kid import kid
from gtool.metrics.precision_recall import precision_recall

DRAWS, NUM, SIZE = 100, 300, 6


def rows(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, SIZE, generator=random) * torch.linspace(1, 0.3, SIZE) + shift


@pytest.mark.parametrize("metric", [fid, kid, cmmd])
def test_95_of_100_intervals_hold_the_mean_of_many_scorings(metric):
    name = metric.__name__
    real = Features.of(rows(NUM, 0))
    found = [metric(Features.of(rows(NUM, 1 + seed, 0.3)), real) for seed in range(DRAWS)]
    truth = np.mean([one[name] for one in found])
    assert 90 <= sum(one[f"{name}.low"] <= truth <= one[f"{name}.high"] for one in found) <= 99


def test_both_ways_to_the_influence_on_a_frechet_distance_agree():
    """With more numbers than rows; and the sum of what images add is the change by their weights."""
    first, second = torch.randn(20, 40).double(), torch.randn(15, 40).double() + 0.3
    ours = influence(Moments.of(first).gaussian(), Moments.of(second).gaussian(), second)
    others = influence_of_rows(first, second)
    torch.testing.assert_close(ours - ours.mean(), others - others.mean(), rtol=1e-5, atol=1e-5)


def test_an_interval_of_a_mean_is_students():
    found = with_interval("kid", 2.0, np.array([1.0, 2.0, 3.0]))
    reach = 4.302653 / 3**0.5
    assert (found["kid.low"], found["kid.high"]) == pytest.approx((2 - reach, 2 + reach))


def test_an_interval_ends_where_a_score_does():
    found = with_interval("precision", 0.9, np.array([0.0, 1.0, 1.0, 0.5]))
    assert found["precision.high"] == 1
    assert with_interval("fid", 0.1, np.array([9.0, 1.0]))["fid.low"] == 0
    assert math.isfinite(found["precision.low"])


def test_a_share_of_all_has_an_interval():
    """200 of 200 images: 3 in 200 may well be others."""
    narrow, wide = (Features.of(rows(200, 1) * width) for width in (0.05, 3.0))
    found = precision_recall(narrow, wide)
    assert (found["precision"], found["precision.high"]) == (1, 1)
    assert 0.97 < found["precision.low"] < 0.995
    assert found["recall"] == 0
    assert 0.005 < found["recall.high"] < 0.05
