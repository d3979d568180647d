"""Timelapses of paintings: from bare ground to the finished picture, by even amounts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from gtool.paint import outputs as module
from gtool.paint.outputs import frame_counts, timelapse
from gtool.strokes.brush import load_brush
from gtool.strokes.settings import BRUSHES
from tests.strokes.examples import a_painting, colors

BRUSH = load_brush("flat")


def coarse_to_fine(levels=5):
    """A painting as `paint` makes them: each level four times as many strokes of half the size."""
    random = torch.Generator().manual_seed(0)
    parts, numbers = [], []
    for level in range(levels):
        uniform = torch.rand(6 * 4**level, 5, generator=random)
        uniform[:, 2:4] = (0.25 + 0.5 * uniform[:, 2:4]) / 2**level
        parts.append(uniform)
        numbers.append(torch.full((len(uniform),), level))
    params = torch.cat(parts)
    return a_painting(
        len(params), aspect=1.0, shape_params=params, colors=colors(len(params)), levels=torch.cat(numbers)
    )


@pytest.mark.parametrize("kind", BRUSHES)
@pytest.mark.parametrize("frames", [1, 2, 9, 40])
def test_the_last_frame_is_the_painting(kind, frames):
    painting = a_painting(300, brush=kind, opacity=0.9)
    *_, last = timelapse(painting, 64, 96, frames)
    assert torch.equal(last, painting.render(64, 96))


def test_every_frame_is_the_painting_as_it_was_then():
    painting = coarse_to_fine(3)
    counts = frame_counts(painting, 8)
    for count, frame in zip(counts, timelapse(painting, 48, 48, 8), strict=True):
        assert torch.equal(frame, painting[:count].render(48, 48))


def test_it_begins_with_the_bare_ground():
    first = next(timelapse(a_painting(), 10, 15, 5))
    assert first.dtype == torch.uint8
    assert (first == torch.tensor([51, 128, 178])).all()


@pytest.mark.parametrize("count", [0, 1, 2, 5, 300])
@pytest.mark.parametrize("frames", [1, 2, 3, 6, 24, 1000])
def test_counts_rise_from_none_to_all(count, frames):
    counts = frame_counts(a_painting(300)[:count], frames)
    assert len(counts) == min(frames, count + 1)
    assert counts[-1] == count
    if len(counts) > 1:
        assert counts[0] == 0
        assert (np.diff(counts) > 0).all()


def test_coarse_strokes_come_in_smaller_numbers_than_fine_ones():
    counts = frame_counts(coarse_to_fine(), 40)
    added = np.diff(counts)
    assert added[:8].max() <= 8
    assert added[-8:].min() > 50
    # Each of the five levels has its share of the frames.
    levels = coarse_to_fine().levels[torch.tensor(counts[1:]) - 1]
    assert levels.bincount(minlength=5).min() >= 2


def test_every_frame_changes_a_visible_and_about_even_part():
    frames = [frame.int() for frame in timelapse(coarse_to_fine(), 96, 96, 33)]
    changed = [float(((b - a).abs().amax(-1) > 8).float().mean()) for a, b in pairwise(frames)]
    assert min(changed) > 0.02
    assert max(changed) < 0.35


def test_frames_are_made_one_at_a_time_and_kept_apart(monkeypatch):
    painted = []
    draw_on = module.draw_on
    monkeypatch.setattr(module, "draw_on", lambda *given: (painted.append(len(given[1])), draw_on(*given)))
    frames = timelapse(a_painting(100), 20, 30, 5)
    assert painted == []
    one = next(frames)
    before = one.clone()
    other = next(frames)
    assert len(painted) == 2
    assert torch.equal(one, before)
    assert not torch.equal(one, other)
    list(frames)
    # Every stroke is painted once, not again for every frame.
    assert sum(painted) == 100


def test_a_timelapse_without_frames_is_refused():
    with pytest.raises(ValueError, match="0 frames"):
        next(timelapse(a_painting(), 20, 30, 0))
