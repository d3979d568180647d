"""Painting a photo: what the reference gets wrong and ours must not, and what a painting promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gtool.data.synthetic.scenes import draw_scenes
from gtool.models.paint_transformer.network import Proposals
from gtool.strokes.brush import load_brush
from gtool.strokes.canvas import uncovered
from gtool.strokes.painting import deepest_level, paint, passes
from gtool.strokes.saliency import saliency
from gtool.strokes.settings import PaintSettings

BRUSH = load_brush("flat")
GREEDY = PaintSettings(levels=2, method="greedy")


def scene(height=96, width=128):
    image = torch.from_numpy(np.asarray(draw_scenes(np.array([4]), 128).images))[0]
    return image[:, :height, :width].float() / 255


def painted(photo, plan, predict=None):
    painting = paint(photo, plan, BRUSH, predict)
    pixels = painting.render(*photo.shape[1:])
    return painting, pixels.permute(2, 0, 1).float() / 255


def one_stroke(logit, size=0.5, count=8):
    """A predictor that always proposes the same strokes."""

    def predict(target, _canvas):
        shape = torch.tensor([0.5, 0.5, size, size, 0.25]).expand(len(target), count, 5)
        return Proposals(shape, torch.full((len(target), count), logit))

    return predict


def test_a_painting_resembles_its_photo_and_covers_the_canvas():
    photo = scene()
    painting, pixels = painted(photo, GREEDY)
    flat = (photo - photo.mean(dim=(1, 2), keepdim=True)).abs().mean()
    assert (pixels - photo).abs().mean() < 0.35 * flat
    assert uncovered(painting, 96, 128) < 0.001
    assert abs(float(pixels.mean() - photo.mean())) < 0.01


@pytest.mark.parametrize("color", [0.0, 1.0])
def test_no_speck_of_another_colour_is_left(color):
    """The reference leaves black pixels between strokes and samples colours from black padding (sheet 4.5, 1)."""
    photo = torch.full((3, 70, 110), color)
    _, pixels = painted(photo, replace(GREEDY, keep_all=True, ground=(0.5, 0.5, 0.5)))
    assert (pixels - photo).abs().max() < 0.3  # bristles shade what they paint
    assert (pixels - photo).abs().mean() < 0.03


def test_decisions_are_thresholded_in_every_pass():
    """The reference paints all strokes of the shifted pass, whatever was decided (sheet 4.5, 2)."""
    photo = scene()
    plan = PaintSettings(levels=1, method="predictor", select="decision")
    refused = paint(photo, plan, BRUSH, one_stroke(-1.0))
    accepted = paint(photo, replace(plan, keep_all=True), BRUSH, one_stroke(1.0))
    assert set(refused.levels.tolist()) == {0}  # the underpainting alone
    assert set(accepted.levels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(("height", "width"), [(96, 128), (40, 500), (333, 200), (32, 32)])
def test_patches_cover_the_photo_and_little_else(height, width):
    """The reference pads to a square of a power of two: up to three times the work (sheet 4.5, 3)."""
    for level in passes(height, width, deepest_level(height, width)):
        right, bottom = level.left + level.columns * level.side, level.top + level.rows * level.side
        assert level.left <= 0
        assert level.top <= 0
        assert right >= width
        assert bottom >= height
        assert right - level.left < width + 3 * level.side
        assert bottom - level.top < height + 3 * level.side


def test_levels_are_resampled_without_aliasing():
    """The reference takes nearest pixels: fine stripes become any colour (sheet 4.5, 4)."""
    stripes = (torch.arange(256) % 2).float().expand(3, 256, 256)
    first = next(passes(256, 256, 3))
    seen = first.resample(stripes)
    assert seen.shape == (3, 32, 32)
    assert (seen - 0.5).abs().max() < 0.02


def test_edges_are_repeated_and_not_black():
    white = torch.ones(3, 50, 80)
    for level in passes(50, 80, 2):
        assert float(level.resample(white).min()) > 0.999


def test_the_seed_decides_the_painting():
    photo = scene()
    first, again, other = (paint(photo, replace(GREEDY, seed=seed), BRUSH, None) for seed in (0, 0, 1))
    assert torch.equal(first.shape_params, again.shape_params)
    assert torch.equal(first.colors, again.colors)
    assert not torch.equal(first.colors[:50], other.colors[:50])


@pytest.mark.parametrize("budget", [10, 60, 150])
def test_a_budget_is_kept(budget):
    painting = paint(scene(), replace(GREEDY, max_strokes=budget), BRUSH, None)
    assert len(painting) <= budget
    assert len(painting) > 0.7 * budget


def test_more_strokes_paint_better():
    photo = scene()
    errors = []
    for levels in (0, 1, 2):
        _, pixels = painted(photo, replace(GREEDY, levels=levels))
        errors.append(float((pixels - photo).abs().mean()))
    assert errors[2] < errors[1] < errors[0]


def test_strokes_that_do_not_help_are_left_out():
    photo = scene()
    plan = replace(GREEDY, method="random")
    kept, all_of_them = (
        paint(photo, plan, BRUSH, None),
        paint(photo, replace(plan, keep_all=True), BRUSH, None),
    )
    assert len(kept) < 0.9 * len(all_of_them)
    error = [(p.render(96, 128).permute(2, 0, 1) / 255 - photo).abs().mean() for p in (kept, all_of_them)]
    assert error[0] < error[1]


def test_methods_rank_as_they_should():
    photo = scene()
    errors = [
        float((painted(photo, replace(GREEDY, method=method))[1] - photo).abs().mean())
        for method in ("random", "greedy")
    ]
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 200), (200, 3), (33, 31)])
def test_odd_sizes_can_be_painted(height, width):
    photo = torch.full((3, height, width), 0.4)
    painting, pixels = painted(photo, PaintSettings(levels=deepest_level(height, width), method="greedy"))
    assert pixels.shape == photo.shape
    assert painting.shape_params.isfinite().all()
    assert (pixels - photo).abs().mean() < 0.05


def test_the_painting_renders_at_any_size():
    photo = scene()
    painting, pixels = painted(photo, GREEDY)
    large = painting.render(384, 512).permute(2, 0, 1).float() / 255
    small = torch.nn.functional.avg_pool2d(large, 4)
    assert (small - pixels).abs().mean() < 0.02


def test_a_predictor_that_sees_the_photo_gets_its_patches():
    seen = []

    def predict(target, canvas):
        seen.append(len(target))
        assert target.shape == canvas.shape == (len(target), 3, 32, 32)
        assert float(canvas.min()) >= 0
        assert float(canvas.max()) <= 1
        return one_stroke(1.0)(target, canvas)

    paint(scene(128, 128), PaintSettings(levels=2), BRUSH, predict)
    assert seen == [1, 4, 16, 25]


def test_strokes_go_where_the_eye_goes():
    photo = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))
    interest = torch.tensor([[[2.0, 0.0]]])  # to the left
    plain, told = (
        paint(photo, replace(GREEDY, max_strokes=150), BRUSH, interest=where) for where in (None, interest)
    )
    left = [float((painting.shape_params[:, 0] < 0.5).float().mean()) for painting in (plain, told)]
    assert left[1] > left[0] + 0.1
    assert set(told.levels.tolist()) == {0, 1, 2, 3, 4}  # a pass more, of finer strokes
    assert len(told) <= 150


def test_a_subject_draws_the_eye_more_than_what_is_around_it():
    photo = torch.full((3, 96, 192), 0.6)
    photo[:, 32:64, 128:160] = scene()[:, :32, :32]
    found = saliency(photo)[0]
    assert found[:, 4:].mean() > found[:, :4].mean()
    assert float(found.mean()) == pytest.approx(1, abs=0.3)
