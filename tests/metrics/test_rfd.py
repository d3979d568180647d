"""The metrics that need no weights: rfd-v1, swd-v1 and their yardstick."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gtool.errors import DataError
from gtool.metrics.features.collector import Features
from gtool.metrics.rfd import RandomFeatures, rfd
from gtool.metrics.swd import PatchProjections, swd
from gtool.metrics.weight_free import WeightFreeScorer
from gtool.runtime.precision import full_fp32
from tests.helpers import pictures


@pytest.fixture(scope="module")
def real():
    return pictures.draw(1000, seed=1)


@pytest.fixture(scope="module")
def fake():
    return pictures.draw(500, seed=2)


@pytest.fixture(scope="module")
def yardstick(real):
    return WeightFreeScorer.build(real, num=500)


def scores_of(images, reference):
    found = {}
    for metric, extractor in ((rfd, RandomFeatures(reference)), (swd, PatchProjections(reference))):
        found |= metric(Features.of(extractor(images)), Features.of(extractor(reference)))
    return found


# What a spoiled set must cost at least, as a multiple of the floor: (metric, factor).
SPOILED = {
    "noise": (lambda images: pictures.noisy(images, 12), "swd_32", 3),
    "blur": (pictures.blurred, "swd_32", 3),
    "shuffled blocks": (pictures.shuffled, "rfd", 3),
    "collapse": (pictures.collapsed, "rfd", 3),
    "upside down": (lambda images: images[:, :, ::-1].copy(), "rfd", 2),
    "brightness": (pictures.brighter, "swd_16", 3),
    "grey": (lambda images: images.mean(1, keepdims=True).astype(np.uint8).repeat(3, 1), "rfd", 3),
    "static": (pictures.static, "rfd", 30),
}


@pytest.mark.parametrize("name", SPOILED)
def test_spoiled_images_score_far_above_the_floor(name, fake, yardstick):
    spoil, metric, factor = SPOILED[name]
    scores = yardstick.score(spoil(fake))
    assert scores[metric] > factor * scores[f"{metric}_floor"]


def test_more_noise_scores_worse(fake, yardstick):
    scores = [yardstick.score(pictures.noisy(fake, deviation)) for deviation in (0, 10, 40)]
    for metric in ("rfd", "swd_32"):
        values = [score[metric] for score in scores]
        assert values == sorted(values)


def test_images_of_the_same_kind_score_at_the_floor(fake, yardstick):
    scores = yardstick.score(fake)
    for metric in ("rfd", "swd_32", "swd_16"):
        assert 0.6 < scores[metric] / scores[f"{metric}_floor"] < 1.7


def test_the_recipes_are_frozen(real, fake):
    """Measured when the recipes were frozen; another value means another metric, which needs another name."""
    assert scores_of(fake[:200], real[:300]) == pytest.approx(
        {"rfd": 12.713096, "swd_32": 38.233628, "swd_16": 85.634753}, rel=1e-4
    )


def test_a_set_is_at_distance_zero_from_itself(real):
    found = scores_of(real[:150], real[:150])
    assert found == pytest.approx({"rfd": 0, "swd_32": 0, "swd_16": 0}, abs=1e-6)


def test_scores_depend_neither_on_batches_nor_on_torch_seeds(real, fake):
    whole = WeightFreeScorer.build(real, num=150).score(fake[:300])
    torch.manual_seed(123)
    again = WeightFreeScorer.build(real, num=150)
    places = torch.arange(150).split(7)
    parts = [again.features(torch.from_numpy(fake[part]), part) for part in places]
    joined = {name: Features.of(torch.cat([part[name] for part in parts])) for name in parts[0]}
    assert again.score_features(joined) == whole


def test_the_floor_is_measured_at_the_number_of_candidates(real, yardstick):
    scores = yardstick.score(pictures.draw(100, seed=3))
    assert (scores["num_real"], scores["num_fake"]) == (500, 100)
    assert scores["rfd_floor"] > 1.5 * yardstick.score(pictures.draw(500, seed=3))["rfd_floor"]


def test_few_real_images_are_halved_and_candidates_cut_to_match(real):
    scores = WeightFreeScorer.build(real[:90], num=2000).score(real[90:180])
    assert (scores["num_real"], scores["num_fake"]) == (45, 45)


def test_reference_and_floor_are_chosen_by_the_seed_and_disjoint(real):
    scores = [
        WeightFreeScorer.build(real[:200], num=50, seed=seed).score(real[:60])["rfd"] for seed in (0, 0, 1)
    ]
    assert scores[0] == scores[1] != scores[2]
    numbered = np.zeros((8, 3, 32, 32), np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None, None]
    assert WeightFreeScorer.build(numbered, num=4).score(numbered[:4])["swd_16_floor"] > 0


@pytest.mark.parametrize(
    ("side", "levels"), [(16, [16]), (40, [32, 16]), (64, [64, 32, 16]), (130, [128, 64, 32, 16])]
)
def test_any_resolution_from_16_px_has_its_levels(side, levels):
    assert PatchProjections(pictures.draw(2, 1, side)).sides == levels
    scores = WeightFreeScorer.build(pictures.draw(24, 1, side)).score(pictures.draw(12, 2, side))
    assert [name for name in scores if name.startswith("swd") and "floor" not in name] == [
        f"swd_{n}" for n in levels
    ]
    assert all(np.isfinite(value) for value in scores.values())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 3, 32, 32), np.float32), "uint8"),
        (np.zeros((4, 32, 32, 3), np.uint8), r"\(N, 3, H, W\)"),
        (np.zeros((4, 3, 8, 8), np.uint8), "16 px"),
        (np.zeros((4, 3, 64, 64), np.uint8), "different resolution"),
        (np.zeros((1, 3, 32, 32), np.uint8), "at least 2 images"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(images, message, yardstick):
    with pytest.raises(DataError, match=message):
        yardstick.score(images)


def test_too_few_real_images_are_refused(real):
    with pytest.raises(DataError, match="at least 4 real images"):
        WeightFreeScorer.build(real[:3])


def test_full_precision_ends_with_its_block():
    before = torch.backends.cuda.matmul.allow_tf32
    with torch.autocast("cpu", torch.bfloat16):
        with full_fp32():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert torch.backends.cuda.matmul.allow_tf32 == before
