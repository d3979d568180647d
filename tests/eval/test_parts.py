"""A score shared out over parts is the score of the whole: collectors that add up, whoever has seen which image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gtool.metrics.features.collector import FeatureCollector
from gtool.metrics.weight_free import WeightFreeScorer
from tests.helpers import pictures


def shares(count, parts):
    """Positions of every second, third ... image, as processes take them."""
    return [torch.arange(part, count, parts) for part in range(parts)]


@pytest.mark.parametrize("keep_rows", [False, True])
@pytest.mark.parametrize("count", [90, 2500, 9000])
def test_features_of_parts_are_those_of_the_whole(count, keep_rows):
    rows = torch.from_numpy(np.random.RandomState(0).randn(count, 12)).float() + 3
    whole, merged = (FeatureCollector(keep_rows=keep_rows) for _ in range(2))
    for batch in rows.split(64):
        whole.add(batch)
    for positions in shares(count, 3):
        part = FeatureCollector(keep_rows=keep_rows)
        for places in positions.split(50):
            part.add(rows[places], places)
        merged.absorb(part)
    one, other = whole.features(), merged.features()
    assert other.count == count
    assert (one.rows is None) == (other.rows is None)
    assert one.rows is None or torch.equal(one.rows, other.rows)
    torch.testing.assert_close(one.gaussian.mean, other.gaussian.mean, rtol=1e-9, atol=0)
    torch.testing.assert_close(one.gaussian.covariance, other.gaussian.covariance, rtol=1e-9, atol=1e-9)


def test_weight_free_scores_of_parts_are_those_of_the_whole():
    real, fake = (torch.from_numpy(pictures.draw(n, seed=s)) for n, s in ((400, 0), (300, 1)))
    yardstick = WeightFreeScorer.build(real, num=200)
    merged = {name: FeatureCollector(keep_rows=True) for name in ("random", "patches")}
    for positions in shares(300, 2):
        for places in positions.split(40):
            for name, rows in yardstick.features(fake[places], places).items():
                if len(rows):
                    merged[name].add(rows, places[: len(rows)])
    expected = yardstick.score(fake)
    found = yardstick.score_features({name: one.features() for name, one in merged.items()})
    assert found == pytest.approx(expected, rel=1e-5)
    assert expected["num_fake"] == 200
