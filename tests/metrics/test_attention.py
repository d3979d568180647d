"""Scores of attention against object masks: the measures on cases worked out by hand, and the whole record."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gtool.data.synthetic.scenes import draw_scenes
from gtool.errors import DataError
from gtool.metrics import segmentation_agreement as scoring
from gtool.metrics.attention import Resampler, layer_table, picked_table, score_attention
from gtool.metrics.partitions import grid_cells, kmeans_cells

RESOLUTION = 32


def by_pairs(first: np.ndarray, second: np.ndarray) -> float:
    """The adjusted Rand index from its definition: pairs of pixels that are together in both, one or none."""
    pairs = [(first[i] == first[j], second[i] == second[j]) for i, j in combinations(range(len(first)), 2)]
    a, b, c, d = (pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False)))
    return 2 * (a * d - b * c) / ((a + b) * (b + d) + (a + c) * (c + d))


def test_ari_is_its_definition_over_pairs_of_pixels():
    random = np.random.RandomState(0)
    labels, objects = random.randint(0, 4, (5, 6, 6)), random.randint(0, 3, (5, 6, 6))
    scores = scoring.score_labels(labels, objects, 4)
    for image in range(5):
        figure = objects[image] > 0
        assert scores["ari"][image] == pytest.approx(by_pairs(labels[image].ravel(), objects[image].ravel()))
        expected = by_pairs(labels[image][figure], objects[image][figure])
        assert scores["ari_fg"][image] == pytest.approx(expected)


def test_ari_of_known_partitions():
    """4/7 is scikit-learn's documented value for [0, 0, 1, 1] and [0, 0, 1, 2]."""
    table = scoring.contingency(np.array([[[0, 0], [1, 1]]]), np.array([[[0, 0], [1, 2]]]), 2)
    assert scoring.adjusted_rand(table)[0] == pytest.approx(4 / 7)
    alone = scoring.contingency(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int), 2)
    assert scoring.adjusted_rand(alone)[0] == 1


# Ground 0 around object 1 (left) and object 2 (right); component 0 the border, 1 the middle, 2 unused.
OBJECTS = np.array([[0, 0, 0, 0], [0, 1, 2, 0], [0, 1, 2, 0], [0, 0, 0, 0]])[None]
MIDDLE = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])[None]


def test_ious_of_a_component_that_holds_both_objects():
    scores = scoring.score_labels(MIDDLE, OBJECTS, 3)
    assert scores["mbo"][0] == pytest.approx(2 / 4)  # shared by both objects
    assert scores["miou"][0] == pytest.approx((2 / 4 + 0) / 2)  # one of them goes without
    assert scores["figure_iou"][0] == 1
    assert scores["ari_fg"][0] == 0


def test_figure_is_what_the_component_of_the_border_leaves():
    labels = MIDDLE.copy()
    labels[0, 0, 0] = 2
    assert scoring.ground_component(labels, 3)[0] == 0
    assert scoring.score_labels(labels, OBJECTS, 3)["figure_iou"][0] == pytest.approx(4 / 5)


def test_objects_beyond_the_components_count_as_missed():
    halves = np.array([[0, 0, 1, 1]] * 4)[None]
    objects = np.array([[1, 1, 2, 3]] * 4)[None]
    scores = scoring.score_labels(halves, objects, 2)
    assert scores["miou"][0] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert scores["mbo"][0] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)


def test_images_without_objects_have_no_say_and_one_object_none_in_the_foreground():
    objects = np.stack([np.zeros((4, 4), int), (OBJECTS[0] == 1).astype(int), OBJECTS[0]])
    scores = scoring.score_partition(np.repeat(MIDDLE, 3, axis=0), objects, 3)
    for name in scoring.MEASURES:
        known = [False, name != "ari_fg", True]
        assert np.isfinite(scores[name]).tolist() == known, name


def test_correlation_is_pearson_of_the_best_map_with_each_mask():
    maps = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    objects = np.stack([OBJECTS[0], OBJECTS[0] * (OBJECTS[0] == 2)])
    found = scoring.correlation(maps, objects)
    for image, ids in enumerate([(1, 2), (2,)]):
        best = [
            max(
                abs(np.corrcoef(one.numpy().ravel(), (objects[image] == k).ravel())[0, 1])
                for one in maps[image]
            )
            for k in ids
        ]
        assert found[image] == pytest.approx(np.mean(best), abs=1e-5)


def test_a_constant_map_correlates_with_nothing():
    assert scoring.correlation(torch.full((1, 8, 4, 4), 0.125), OBJECTS)[0] == 0


def test_entropy_usage_and_movement_at_their_extremes():
    even = torch.full((2, 8, 4, 4), 0.125)
    one = torch.zeros(2, 8, 4, 4)
    one[:, 3] = 1
    assert scoring.entropy(even) == pytest.approx([1, 1], abs=1e-6)
    assert scoring.entropy(one) == pytest.approx([0, 0])
    assert scoring.usage(scoring.mass(even)) == pytest.approx([8, 8], abs=1e-5)
    assert scoring.usage(scoring.mass(one)) == pytest.approx([1, 1])
    assert scoring.moved(one, one.roll(1, dims=1)) == pytest.approx([1, 1])
    assert scoring.moved(one, one) == pytest.approx([0, 0])


def test_intervals_are_those_of_a_mean():
    values = np.random.RandomState(1).randn(400)
    found = Resampler(400).mean(values)
    assert found["value"] == pytest.approx(values.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    with_gaps = np.where(np.arange(400) % 4, values, np.nan)
    assert Resampler(400).mean(with_gaps)["value"] == pytest.approx(np.nanmean(with_gaps))
    assert Resampler(4).mean(np.full(4, np.nan)) == {"value": None, "low": None, "high": None}


def test_grid_cells_are_equal_and_wider_than_high():
    cells = grid_cells(8, 32)
    assert np.bincount(cells.ravel()).tolist() == [128] * 8
    assert cells[0, ::8].tolist() == [0, 1, 2, 3]
    assert cells[::16, 0].tolist() == [0, 4]
    assert np.bincount(grid_cells(7, 14).ravel()).tolist() == [28] * 7


def test_kmeans_finds_flat_regions_and_depends_on_the_image_alone():
    images = np.zeros((3, 3, 16, 16), np.uint8)
    images[:, 0, :, 8:] = 255
    images[:, 1, 8:] = 255
    cells = kmeans_cells(images, 4)
    for image in cells:
        assert len({image[0, 0], image[0, 15], image[15, 0], image[15, 15]}) == 4
        assert (image[:8, :8] == image[0, 0]).all()
        assert (image[8:, 8:] == image[15, 15]).all()
    noise = np.random.RandomState(0).randint(0, 256, (70, 3, 16, 16)).astype(np.uint8)
    assert (kmeans_cells(noise[:5], 6) == kmeans_cells(noise, 6)[:5]).all()


# The record


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(np.arange(40), RESOLUTION, seed=3)


def exact_maps(masks: np.ndarray) -> torch.Tensor:
    """The maps (N, 1, 9, R, R) of a model that tells all objects apart."""
    return F.one_hot(torch.from_numpy(masks.astype(np.int64)), 9).permute(0, 3, 1, 2).float()[:, None]


@pytest.fixture(scope="module")
def record(scenes):
    exact = exact_maps(scenes.masks)
    maps = {"8a": F.adaptive_avg_pool2d(exact[:, 0], 8)[:, None], "32b": exact}
    untrained = {name: torch.full_like(one, 1 / 9) for name, one in maps.items()}
    changed = maps | {"32b": exact.roll(1, dims=2)}
    return score_attention(scenes.images, scenes.masks, maps, untrained=untrained, changed=changed)


def score(scenes, maps, masks=None):
    """Score maps beside an untrained model and other local latents that give the same ones."""
    masks = scenes.masks if masks is None else masks
    return score_attention(scenes.images, masks, maps, untrained=maps, changed=maps)


def values(scores: dict) -> dict:
    return {name: score["value"] for name, score in scores.items()}


def test_maps_that_are_the_masks_score_one_and_the_baselines_less(record):
    layers = {row["layer"]: row for row in record["layers"]}
    exact = layers["32b"]
    found = values(exact["scores"])
    for name in scoring.MEASURES:
        assert found[name] == pytest.approx(1, abs=1e-5), name
        assert values(exact["permuted"])[name] < 0.5
        assert values(record["baselines"]["grid"])[name] < 0.7
    assert found["sensitivity"] == pytest.approx(1)
    assert values(layers["8a"]["scores"])["sensitivity"] == 0
    assert found["entropy"] == 0
    assert values(exact["untrained"])["entropy"] == pytest.approx(1)
    assert values(exact["untrained"])["usage"] == pytest.approx(9)
    assert values(exact["untrained"])["ari"] == 0
    assert 0.4 < values(layers["8a"]["scores"])["ari"] < 1


def test_a_record_is_plain_json_and_says_what_it_counted(record, scenes):
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["num_images"] == record["num_scored"] == record["num_scored_fg"] == 40
    assert record["objects_per_image"] == np.mean([len(np.unique(mask)) - 1 for mask in scenes.masks])
    assert record["protocol"] == "attention-v1"
    assert record["num_components"] == 9


def test_a_layer_is_picked_on_other_images_than_it_is_reported_on(scenes):
    exact = exact_maps(scenes.masks)
    lucky, steady = exact.clone(), exact.clone()
    lucky[1::2] = 1 / 9  # right where layers are picked, empty where they are reported
    steady[:, :, :2] = steady[:, :, :2].sum(2, keepdim=True) / 2  # one object is given to the ground
    record = score(scenes, {"lucky": lucky, "steady": steady})
    picked = record["picked"]["ari"]
    assert picked["attention"]["layer"] == "lucky"
    assert picked["attention"]["value"] == 0
    assert picked["kmeans"]["margin"]["value"] == pytest.approx(-picked["kmeans"]["value"])


def test_margins_say_whether_attention_beats_a_baseline(record):
    picked = record["picked"]["ari_fg"]
    assert picked["attention"]["layer"] == "32b"
    for name in ("permuted", "untrained", "grid", "kmeans"):
        margin = picked[name]["margin"]
        assert 0 < margin["low"] <= margin["value"] <= margin["high"]
        assert margin["value"] == pytest.approx(1 - picked[name]["value"])


def test_tables_have_a_text_for_every_score(record):
    for table in (layer_table(record), picked_table(record)):
        assert len({len(row) for row in table}) == 1
    assert ["32b", "1.000 ±0.000"] in [row[:2] for row in layer_table(record)]


def test_pictures_without_objects_are_refused_in_one_line(scenes):
    masks = np.zeros_like(scenes.masks)
    with pytest.raises(DataError, match="4 images with objects") as refused:
        score(scenes, {"8a": exact_maps(scenes.masks)}, masks)
    assert "\n" not in str(refused.value)


def test_scores_do_not_depend_on_the_chunks(scenes, monkeypatch):
    maps = {"32b": exact_maps(scenes.masks) + 0.1}
    whole = score(scenes, maps)
    monkeypatch.setattr("gtool.metrics.attention.CHUNK_PIXELS", 7 * RESOLUTION**2)
    parts = score(scenes, maps)
    for one, other in zip(whole["layers"], parts["layers"], strict=True):
        assert values(one["scores"]) == pytest.approx(values(other["scores"]), abs=1e-5, nan_ok=True)
