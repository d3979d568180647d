"""Refining a painting of few strokes: what it gains, and what it must not change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gtool.data.synthetic.scenes import draw_scenes
from gtool.runtime.device import use_threads
from gtool.strokes.brush import MARKS, load_brush
from gtool.strokes.canvas import uncovered
from gtool.strokes.painting import deepest_level, paint
from gtool.strokes.refinement import refine
from gtool.strokes.renderer import mark_of, turn_to_mark
from gtool.strokes.saliency import saliency
from gtool.strokes.settings import BRUSHES, PaintSettings

FEW = PaintSettings(levels=2, method="greedy", max_strokes=70)


def scene(height=96, width=128):
    image = torch.from_numpy(np.asarray(draw_scenes(np.array([4]), 128).images))[0]
    return image[:, :height, :width].float() / 255


def both(photo, settings=FEW, brush="flat"):
    """A painting as its strokes were found, and refined."""
    interest = saliency(photo)
    before = paint(photo, settings, load_brush(brush, marks=MARKS), interest=interest)
    return before, refine(before, photo, settings, interest=interest)


def errors(painting, photo):
    """Mean differences of pixels and of their gradients."""
    far = painting.render(*photo.shape[1:]).permute(2, 0, 1).float() / 255 - photo
    return float(far.abs().mean()), float(far.diff(dim=1).abs().mean() + far.diff(dim=2).abs().mean())


def test_as_many_strokes_come_nearer():
    photo = scene()
    before, after = both(photo)
    assert len(after) == len(before) == 70
    for found, was in zip(errors(after, photo), errors(before, photo), strict=True):
        assert found < 0.8 * was
    assert uncovered(after, 96, 128) < 0.005
    assert after.levels.tolist() == sorted(after.levels.tolist())


@pytest.mark.parametrize(("brush", "opacity"), [*((brush, 1.0) for brush in BRUSHES), ("wash", 0.5)])
def test_with_every_brush_and_thin_paint(brush, opacity):
    photo = scene(48, 64)
    before, after = both(photo, replace(FEW, opacity=opacity, max_strokes=40), brush)
    assert errors(after, photo)[0] < 0.85 * errors(before, photo)[0]
    assert after.opacity == opacity


def test_strokes_stay_within_their_limits():
    settings = replace(FEW, shortest=0.15, longest=0.25)
    _, after = both(scene(64, 64), settings)
    lengths = after.shape_params[:, 2:4].amax(1)
    assert lengths.min() > 0.1499
    assert lengths.max() < 0.2501
    assert after.colors.min() >= 0
    assert after.colors.max() <= 1


def test_the_same_strokes_come_every_time_and_by_any_number_of_threads():
    photo = scene(64, 64)
    interest = saliency(photo)
    found = []
    before = paint(photo, FEW, load_brush("flat"), interest=interest)
    for threads in (1, 1, 3):
        with use_threads(threads):
            found.append(refine(before, photo, FEW, interest=interest))
    for again in found[1:]:
        assert torch.equal(found[0].shape_params, again.shape_params)
        assert torch.equal(found[0].colors, again.colors)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 200), (200, 3), (33, 31), (600, 9)])
def test_odd_sizes(height, width):
    photo = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    settings = replace(FEW, levels=min(3, deepest_level(height, width)), max_strokes=20)
    _, after = both(photo, settings)
    assert after.shape_params.isfinite().all()
    assert after.render(height, width).shape == (height, width, 3)


def test_it_tells_how_far_it_is():
    told = []
    photo = scene(16, 24)
    before = paint(photo, FEW, load_brush("flat"))
    refine(before, photo, FEW, interest=torch.ones(1, 1, 1), progress=lambda *told_so: told.append(told_so))
    done, totals = zip(*told, strict=True)
    assert list(done) == list(range(totals[0] + 1))
    assert set(totals) == {done[-1]}


def test_a_stroke_turns_to_a_mark_by_almost_nothing():
    theta = 4 * torch.rand(1000, generator=torch.Generator().manual_seed(0)) - 2
    mark = torch.arange(1000) % MARKS
    turned = turn_to_mark(theta, mark, MARKS)
    assert torch.equal(mark_of(turned, MARKS), mark)
    assert (turned - theta).abs().max() < 1 / 4000
