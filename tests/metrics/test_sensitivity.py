"""rfd and swd put spoiled images in the order that was measured on photographs, here on built-in scenes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gtool.data.open import open_dataset
from gtool.metrics.weight_free import WeightFreeScorer
from tests.helpers.distortions import CHANGES

COUNT = 500
# Each scores higher than the one before. tests/benchmarks/score_sensitivity.py has all of them, and other data.
ORDERS = [
    ("rfd", "none", "noise 20", "upside down", "uniform noise"),
    ("rfd", "none", "noise 20", "blocks shuffled", "uniform noise"),
    ("rfd", "none", "noise 20", "repeated", "uniform noise"),
    ("rfd", "none", "blur 0.6", "blur 1.0", "upside down"),
    ("swd_32", "none", "noise 5", "noise 20", "uniform noise"),
    ("swd_32", "none", "blur 0.6", "blur 1.0", "uniform noise"),
    ("swd_32", "none", "repeated"),
    ("swd_16", "none", "repeated", "upside down", "uniform noise"),
    ("swd_16", "none", "blocks shuffled", "uniform noise"),
]


@pytest.fixture(scope="module")
def scores():
    real, fake = (open_dataset("scenes", split=split, resolution=32) for split in ("train", "test"))
    squares = np.stack(real.read_squares(list(range(2 * COUNT)), 32, "center"))
    yardstick = WeightFreeScorer.build(torch.from_numpy(squares), num=COUNT)
    images = np.stack(fake.read_squares(list(range(COUNT)), 32, "center"))
    wanted = sorted({name for _, *names in ORDERS for name in names})
    return {name: yardstick.score(torch.from_numpy(CHANGES[name](images))) for name in wanted}


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: f"{order[0]}: {order[-2]}")
def test_worse_images_score_worse(order, scores):
    metric, *names = order
    values = [scores[name][metric] for name in names]
    assert values == sorted(values), dict(zip(names, values, strict=True))


def test_gross_failures_score_far_above_the_floor_and_other_images_at_it(scores):
    floor = scores["none"]["rfd_floor"]
    assert scores["none"]["rfd"] == pytest.approx(floor, rel=0.2)
    for name in ("upside down", "blocks shuffled", "repeated", "uniform noise"):
        assert scores[name]["rfd"] > 4 * floor
