"""Masks of generated scenes: the shipped network on scenes it never saw, and the rule that makes objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gtool.data.synthetic.scenes import draw_scenes
from gtool.errors import CheckpointError
from gtool.io import run_folder
from gtool.metrics import segmenter
from gtool.metrics.segmentation_agreement import score_labels
from tests.helpers import pictures

HELD_OUT_SEED = 2002


@pytest.mark.parametrize(("resolution", "least"), [(32, 0.93), (64, 0.96), (100, 0.95)])
def test_objects_of_scenes_are_found_at_every_size(resolution, least):
    scenes = draw_scenes(np.arange(48), resolution, HELD_OUT_SEED)
    found = segmenter.find_objects(scenes.images)
    assert found.dtype == np.uint8
    scores = score_labels(found, scenes.masks, int(found.max()) + 1)
    assert scores["ari"].mean() > least
    assert scores["ari_fg"].mean() > least - 0.02
    right = [len(np.unique(a)) == len(np.unique(b)) for a, b in zip(found, scenes.masks, strict=True)]
    assert np.mean(right) > 0.85


def test_noise_and_blur_cost_little():
    scenes = draw_scenes(np.arange(48), 32, HELD_OUT_SEED)
    for spoiled in (pictures.noisy(scenes.images, 8), pictures.blurred(scenes.images)):
        found = segmenter.find_objects(spoiled)
        assert score_labels(found, scenes.masks, int(found.max()) + 1)["ari"].mean() > 0.85


def test_an_empty_ground_has_no_objects():
    ground = np.tile(np.linspace(190, 230, 32)[None, None, :, None], (2, 3, 1, 32)).astype(np.uint8)
    assert segmenter.find_objects(ground).max() == 0


def test_masks_do_not_depend_on_the_chunk():
    images = draw_scenes(np.arange(6), 32, HELD_OUT_SEED).images
    assert (segmenter.find_objects(images)[4:] == segmenter.find_objects(images[4:])).all()


def test_objects_are_the_pieces_of_a_class_the_largest_first():
    classes = np.zeros((2, 16, 16), np.uint8)
    classes[0, 2:4, 2:6] = 3  # 8 pixels
    classes[0, 8:12, 8:12] = 3  # 16 pixels of the same class, apart from them
    classes[0, 4, 6] = 3  # hangs on the first by a corner
    classes[0, 2:4, 6:9] = 5  # touches it, of another class
    classes[0, 15, 0] = 7  # one pixel
    classes[1, :4, :4] = 3
    found = segmenter.objects_of(classes, smallest=2 / 256)
    assert (found[0, 8:12, 8:12] == 1).all()
    assert (found[0, 2:4, 2:6] == 2).all()
    assert found[0, 4, 6] == 2
    assert (found[0, 2:4, 6:9] == 3).all()
    assert found[0, 15, 0] == 0
    assert set(np.unique(found[1])) == {0, 1}


def test_a_package_without_its_file_says_so(monkeypatch):
    monkeypatch.setattr(run_folder, "SHIPPED_FOLDER", Path("nowhere"))
    with pytest.raises(CheckpointError, match="install gtool again"):
        segmenter.shipped_segmenter.__wrapped__()
