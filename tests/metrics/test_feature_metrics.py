"""Metrics of one pass of features: closed forms, and what they must see."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gtool.errors import DataError
from gtool.metrics import fid_infinity as infinity_module
from gtool.metrics import kid as kid_module
from gtool.metrics import precision_recall as neighbours_module
from gtool.metrics.features.collector import Features
from gtool.metrics.fid_infinity import fid_infinity
from gtool.metrics.frechet import Moments, frechet
from gtool.metrics.inception_score import inception_score
from gtool.metrics.kid import kid
from gtool.metrics.precision_recall import density_coverage, precision_recall
from gtool.metrics.registry import METRICS


def normal(count, size, seed):
    return torch.from_numpy(np.random.RandomState(seed).randn(count, size))


# IS.


def score_of(logits):
    return inception_score(Features.of(logits))


def test_is_of_sure_classes_is_their_number():
    # Each of the ten parts of 400 images has every class: 40 of each, but which ones is drawn.
    logits = 50.0 * torch.eye(4).repeat(100, 1)
    assert score_of(logits)["is"] == pytest.approx(4, rel=0.05)
    assert score_of(50.0 * torch.eye(4)[[2]].repeat(100, 1))["is"] == pytest.approx(1, abs=1e-9)


def test_is_of_unsure_classes_is_one_without_deviation():
    found = score_of(torch.zeros(50, 7))
    assert (found["is"], found["is.deviation"]) == pytest.approx((1, 0), abs=1e-12)


def test_is_is_the_mean_over_ten_parts_of_a_shuffle():
    # The definition, written out as in torch-fidelity 0.4, metric_isc.py.
    logits = 3 * normal(103, 20, seed=1)
    p = logits[np.random.RandomState(2020).permutation(103)].softmax(1)
    parts = [p[i * 103 // 10 : (i + 1) * 103 // 10] for i in range(10)]
    values = [float((q * (q.log() - q.mean(0).log())).sum(1).mean().exp()) for q in parts]
    found = score_of(logits)
    assert (found["is"], found["is.deviation"]) == pytest.approx((np.mean(values), np.std(values)), rel=1e-9)


def test_is_refuses_fewer_images_than_splits():
    with pytest.raises(DataError, match="10 images"):
        score_of(torch.zeros(9, 5))


# Neighbourhoods.


def near(fake, real):
    sets = Features.of(fake), Features.of(real)
    return precision_recall(*sets) | density_coverage(*sets)


def kid_of(fake, real):
    return kid(Features.of(fake), Features.of(real))


def test_identical_sets_have_precision_and_recall_and_coverage_one():
    rows = normal(60, 8, seed=0)
    found = near(rows, rows)
    assert found["precision"] == found["recall"] == found["coverage"] == 1


def test_sets_far_apart_share_nothing():
    found = near(normal(40, 8, seed=0), normal(50, 8, seed=1) + 100)
    assert {value for name, value in found.items() if "." not in name} == {0.0}


def test_one_mode_of_two_has_precision_and_half_the_recall():
    real = torch.cat([normal(200, 4, seed=0), normal(200, 4, seed=1) + 40])
    found = near(normal(400, 4, seed=2), real)
    assert found["precision"] > 0.9
    assert found["recall"] == pytest.approx(0.5, abs=0.05)
    assert found["coverage"] == pytest.approx(0.5, abs=0.05)


def test_equal_distributions_have_the_expected_density_and_coverage():
    # Naeem et al. 2020, section 3: E[density] = 1; E[coverage] = 1 - (M-1)...(M-k)/((2M-1)...(2M-k)), about 1 - 2^-k.
    count, k = 1500, 5
    found = near(normal(count, 6, seed=0), normal(count, 6, seed=1))
    missed = math.prod((count - i) / (2 * count - i) for i in range(1, k + 1))
    assert found["density"] == pytest.approx(1, abs=0.06)
    assert found["coverage"] == pytest.approx(1 - missed, abs=0.015)
    assert 1 - missed == pytest.approx(0.969, abs=1e-3)


def test_blocks_change_no_neighbourhood(monkeypatch):
    fake, real = normal(130, 5, seed=0), normal(90, 5, seed=1) + 0.3
    whole = near(fake, real)
    monkeypatch.setattr(neighbours_module, "BLOCK_ENTRIES", 300)
    assert near(fake, real) == whole
    apart = torch.cdist(real, fake)
    radius = torch.cdist(real, real).kthvalue(4).values
    assert whole["precision"] == pytest.approx(float((apart <= radius[:, None]).any(0).double().mean()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("measure", [near, kid_of], ids=["near", "kid"])
def test_rows_are_left_as_they_were(measure, dtype):
    rows = [normal(30, 8, seed).to(dtype) for seed in (0, 1)]
    before = [one.clone() for one in rows]
    measure(*rows)
    assert all(torch.equal(*pair) for pair in zip(rows, before, strict=True))


class Largest(TorchDispatchMode):
    """Watches for the largest fp64 tensor that anything makes."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            self.entries = max(self.entries, found.numel())
        return found


def test_kid_of_many_rows_never_has_all_of_them_in_fp64(monkeypatch):
    monkeypatch.setattr(kid_module, "NUM_SUBSETS", 3)
    monkeypatch.setattr(kid_module, "SUBSET_SIZE", 20)
    rows = [normal(300, 64, seed).float() for seed in (0, 1)]
    with Largest() as largest:
        kid_of(*rows)
    assert 20 * 64 <= largest.entries < 300 * 64 / 10


def test_neighbourhoods_refuse_too_few_images_and_what_is_not_finite():
    with pytest.raises(DataError, match="--density needs 6 images"):
        near(normal(5, 3, seed=0), normal(50, 3, seed=1))
    with pytest.raises(DataError, match="not finite"):
        near(normal(50, 3, seed=0) / 0, normal(50, 3, seed=1))


# FID-infinity.


def test_fid_infinity_is_nearer_to_the_truth_than_fid(monkeypatch):
    monkeypatch.setattr(infinity_module, "SMALLEST", 200)
    monkeypatch.setitem(METRICS, "fid_infinity", replace(METRICS["fid_infinity"], min_images=400))
    size = 40
    identity = torch.eye(size, dtype=torch.float64)
    real = Features(10**6, None, Moments(10**6, torch.zeros(size).double(), identity * (10**6 - 1)))
    sets = [normal(1500, size, seed) + 0.2 for seed in range(8)]
    truth = size * 0.2**2

    def measure(rows, seed=0):
        return fid_infinity(Features.of(rows), real, seed)["fid_infinity"]

    plain = np.mean([frechet(real.gaussian, Moments.of(fake).gaussian()) for fake in sets])
    found = np.mean([measure(fake) for fake in sets])
    assert plain > 1.1 * truth
    assert abs(found - truth) < 0.25 * (plain - truth)
    assert measure(sets[0]) == measure(sets[0]) != measure(sets[0], seed=1)


def test_fid_infinity_says_what_it_needs():
    with pytest.raises(DataError, match="--fid-infinity needs 10,000 images or more; got 9,999"):
        METRICS["fid_infinity"].require_images(9_999)
