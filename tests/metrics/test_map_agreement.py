"""Maps read off pictures of scenes: what drawn scenes reach, what it is compared with, and the arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from gtool.data.synthetic.scenes import CLASSES, draw_scenes
from gtool.metrics.map_agreement import NUM_CLASSES, compare_maps, others, read_maps
from tests.helpers import pictures

HELD_OUT_SEED = 2002


def scenes(resolution, count=48):
    return draw_scenes(np.arange(count), resolution, HELD_OUT_SEED)


@pytest.mark.parametrize(("resolution", "least"), [(32, 0.93), (64, 0.96), (96, 0.95)])
def test_maps_of_drawn_scenes_are_read_at_every_size(resolution, least):
    drawn = scenes(resolution)
    found = compare_maps(read_maps(drawn.images), drawn.segmentation)
    assert found["pixels"] > least
    assert found["mean_iou"] > least - 0.15


def test_blur_and_noise_cost_little_and_shuffled_maps_a_lot():
    drawn = scenes(32)
    for spoilt in (pictures.noisy(drawn.images, 8), pictures.blurred(drawn.images)):
        assert compare_maps(read_maps(spoilt), drawn.segmentation)["pixels"] > 0.88
    shuffled = compare_maps(read_maps(drawn.images), drawn.segmentation[others(len(drawn.images), 0)])
    assert shuffled["pixels"] < 0.5
    assert shuffled["mean_iou"] < 0.3


def test_maps_do_not_depend_on_the_chunk():
    images = scenes(32, 6).images
    assert (read_maps(images)[4:] == read_maps(images[4:])).all()


def test_there_is_a_class_for_each_of_the_scenes():
    assert len(CLASSES) == NUM_CLASSES


def test_shares_are_of_the_wanted_pixels():
    wanted = np.array([[[0, 0, 0, 1]], [[1, 1, 8, 8]]])  # 8: no label, does not count
    found = np.array([[[0, 0, 1, 1]], [[1, 2, 0, 1]]])
    agreement = compare_maps(found, wanted)
    assert agreement["pixels"] == pytest.approx(4 / 6)
    assert agreement["classes"] == [pytest.approx(2 / 3), pytest.approx(2 / 3), *[None] * 6]
    assert agreement["ious"] == [pytest.approx(2 / 3), pytest.approx(2 / 4), *[None] * 6]
    assert agreement["mean_iou"] == pytest.approx(7 / 12)


def test_every_picture_is_compared_with_another_map():
    chosen = others(50, 3)
    assert sorted(chosen) == list(range(50))
    assert (chosen != np.arange(50)).all()
    assert (others(50, 3) == chosen).all()
