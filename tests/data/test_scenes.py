"""The built-in scenes: what a seed promises, and what the ground truth says."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gtool.config.schema import Recipe
from gtool.data.held_out import held_out_alone, held_out_of
from gtool.data.synthetic import scenes
from gtool.data.synthetic.scene_layout import SHAPES, lay_out
from gtool.data.synthetic.scenes import CLASS_COLOURS, CLASSES, SHADOW, SKY, draw_scenes
from gtool.runtime.device import make_compute


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_scene_depends_on_seed_and_index_alone():
    together = draw_scenes(np.arange(40), 24, seed=3)
    apart = draw_scenes(np.array([17, 4, 39]), 24, seed=3)
    assert np.array_equal(apart.images, together.images[[17, 4, 39]])
    assert np.array_equal(apart.masks, together.masks[[17, 4, 39]])
    assert np.array_equal(apart.segmentation, together.segmentation[[17, 4, 39]])


def test_scenes_of_two_seeds_differ():
    first, second = (draw_scenes(np.arange(8), 16, seed).images for seed in (0, 1))
    assert (first != second).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("resolution", [8, 32, 64, 100])
def test_scenes_have_the_shapes_and_types_promised(resolution):
    drawn = draw_scenes(np.arange(3), resolution)
    assert drawn.images.shape == (3, 3, resolution, resolution)
    assert drawn.masks.shape == drawn.segmentation.shape == (3, resolution, resolution)
    assert {array.dtype for array in vars(drawn).values()} == {np.dtype(np.uint8)}


def test_no_indices_give_no_scenes():
    assert draw_scenes(np.arange(0), 16).images.shape == (0, 3, 16, 16)


@pytest.mark.parametrize("tile", [16, 40])
def test_scene_is_the_same_in_tiles_as_whole(tile, monkeypatch):
    whole = draw_scenes(np.arange(200), 64, seed=5)
    monkeypatch.setattr(scenes, "_TILE", tile)
    assert same(draw_scenes(np.arange(200), 64, seed=5), whole)


def test_scene_is_the_same_picture_at_every_resolution():
    small, large = (draw_scenes(np.arange(16), resolution).images for resolution in (32, 256))
    for fine, coarse in zip(large, small, strict=True):
        shrunk = Image.fromarray(fine.transpose(1, 2, 0)).resize((32, 32), Image.Resampling.BOX)
        difference = np.abs(np.asarray(shrunk, int).transpose(2, 0, 1) - coarse)
        assert difference.mean() < 3


def test_masks_agree_with_layout_and_semantic_map():
    drawn, layout = draw_scenes(np.arange(60), 64, seed=2), lay_out(np.arange(60), seed=2)
    assert np.array_equal(drawn.masks > 0, drawn.segmentation > SHADOW)
    image, y, x = np.nonzero(drawn.masks)
    shape = layout.shape[image, drawn.masks[image, y, x].astype(int) - 1]
    assert np.array_equal(drawn.segmentation[image, y, x], shape + SHADOW + 1)
    assert (drawn.masks.max(axis=(1, 2)) <= layout.count).all()


def test_front_most_object_wins():
    """The last object is whole: its mask does not change when the others are taken away."""
    layout = lay_out(np.arange(30), seed=4)
    drawn = draw_scenes(np.arange(30), 64, seed=4)
    last = drawn.masks == layout.count[:, None, None]
    areas = last.sum(axis=(1, 2)) / 64**2
    size = layout.size[np.arange(30), layout.count - 1]
    assert (areas > 1.2 * size**2).all()


def test_most_objects_can_be_seen_at_32_pixels():
    drawn, count = draw_scenes(np.arange(500), 32), lay_out(np.arange(500), 0).count
    seen = [
        sum((mask == k + 1).sum() >= 6 for k in range(n)) for mask, n in zip(drawn.masks, count, strict=True)
    ]
    assert sum(seen) > 0.93 * count.sum()


def test_layout_has_two_to_eight_objects_mostly_two_to_four():
    count = lay_out(np.arange(4000), 0).count
    assert set(count) == set(range(2, 9))
    assert 0.7 < np.mean(count <= 4) < 0.9


def test_no_hue_occurs_twice_in_a_scene():
    colours = lay_out(np.arange(50), 0).colour
    assert all(len(np.unique(colour, axis=0)) == len(colour) for colour in colours)


def test_half_of_the_scenes_have_a_sky_and_it_is_above_the_ground():
    segmentation = draw_scenes(np.arange(600), 16).segmentation
    has_sky = (segmentation == SKY).any(axis=(1, 2))
    assert 0.4 < has_sky.mean() < 0.6
    assert not (segmentation[:, -1] == SKY).any()


def test_shadow_is_darker_than_the_ground_around():
    drawn = draw_scenes(np.arange(40), 64)
    light = drawn.images.mean(axis=1)
    shadow, ground = drawn.segmentation == SHADOW, drawn.segmentation == SHADOW - 1
    pairs = [
        (light[i][shadow[i]].mean(), light[i][ground[i]].mean()) for i in range(40) if shadow[i].sum() > 20
    ]
    assert len(pairs) > 30
    assert all(dark < 0.85 * bright for dark, bright in pairs)


def test_every_class_has_a_name_and_a_colour():
    assert len(CLASSES) == len(CLASS_COLOURS) == 3 + len(SHAPES)
    assert set(np.unique(draw_scenes(np.arange(60), 32).segmentation)) == set(range(len(CLASSES)))


def test_scenes_stay_the_same_from_version_to_version():
    """Channel means of the first 64 scenes; a change of the pictures raises scenes.VERSION and these."""
    means = draw_scenes(np.arange(64), 32).images.mean(axis=(0, 2, 3))
    assert scenes.VERSION == 1
    assert means == pytest.approx(GOLDEN_MEANS, abs=0.05)


GOLDEN_MEANS = (176.038, 168.576, 166.663)


def test_held_out_scenes_are_drawn_alone_and_are_the_same():
    data = {"dataset": "scenes", "resolution": 16, "num_images": 60, "condition": "segmentation"}
    recipe, compute = Recipe.model_validate({"model_name": "prior", "data": data}), make_compute("cpu")
    images, kept = held_out_of(recipe, compute, "")
    alone, places, numbers = held_out_alone(recipe, compute, "")
    assert len(alone) == len(kept) == 3
    assert numbers.tolist() == kept.tolist()
    np.testing.assert_array_equal(alone.images[places], images.images[kept])
    np.testing.assert_array_equal(alone.segmentations[places], images.segmentations[kept])
