"""Defects of the reference that ours must not have, where no test of a part shows it; the others are

in test_painting.py (black specks, edges sampled from black padding, decisions of the shifted pass, work on padding,
nearest resampling), test_strokes_render.py (paint darker than its colour, the hard switch of bristles, train and test
renderers that differ), test_stroke_losses.py (angles, distances that are not a number), test_paint.py (orientation,
transparency, profile, seed), test_export_predictor.py (files written on a GPU).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gtool.losses.matching import match
from gtool.models.paint_transformer.config import PaintTransformerConfig
from gtool.models.paint_transformer.network import ReleasedPredictor
from gtool.strokes.brush import load_brush
from gtool.strokes.painting import deepest_level, paint
from gtool.strokes.renderer import touch
from gtool.strokes.settings import PaintSettings
from gtool.train.stroke_targets import known_strokes
from tests.helpers import painted

BRUSH = load_brush("flat")


@pytest.fixture(scope="module")
def known():
    return known_strokes(BRUSH, 400, 8, torch.Generator().manual_seed(0), torch.device("cpu"))


def test_sides_that_come_out_negative_are_held_above_a_least_size():
    """Sheet 1.1: raw outputs near or below zero give infinite or flipped marks."""
    network = ReleasedPredictor(PaintTransformerConfig(architecture="released")).eval()
    torch.nn.init.constant_(network.linear_param[-1].bias, -3.0)
    with torch.no_grad():
        shape_params, _ = network(torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32))
    assert (shape_params[..., 2:4] == 0.02).all()
    assert shape_params.isfinite().all()


def test_strokes_learned_from_are_not_off_centre(known):
    """Sheet 3.1: centres between 0.2 and 0.7 teach strokes in the upper left."""
    centres = known.strokes[..., :2].flatten(0, 1)
    assert (centres.mean(0) - 0.5).abs().max() < 0.02
    assert centres.min() < 0.05
    assert centres.max() > 0.95


def test_canvases_learned_from_are_not_mostly_black(known):
    """Sheet 3.1: 60 % of the reference's background and 42 % of its target are black, which no photo is."""
    for pictures, most in ((known.canvas, 0.2), (known.target, 0.15)):
        assert (pictures.amax(dim=1) < 0.004).float().mean() < most


def test_a_huge_logit_does_not_decide_which_strokes_are_matched():
    """Sheet 3.2: the reference's matching cost falls without bound with the raw logit."""
    near, far = [0.5, 0.5, 0.3, 0.3, 0.2], [0.1, 0.9, 0.8, 0.1, 0.7]
    proposed, given = torch.tensor([[near, far]]), torch.tensor([[near]])
    _, place, _ = match(proposed, torch.tensor([[-50.0, 50.0]]), given, torch.ones(1, 1, dtype=torch.bool))
    assert place.tolist() == [0]


def test_levels_beyond_512_pixels_are_painted():
    """Sheet 4.3: a list of five entries ends the reference's painting above 512 px with an index error."""
    photo = torch.rand(3, 1, 70, generator=torch.Generator().manual_seed(0))
    photo = photo.repeat_interleave(16, 2).expand(3, 12, 1120)
    levels = deepest_level(12, 1120)
    assert levels == 6
    painting = paint(photo, PaintSettings(levels=levels, method="random"), BRUSH, None)
    assert int(painting.levels.max()) == levels + 1  # the shifted pass


@pytest.mark.parametrize("size", [(40, 150), (150, 40), (90, 130)])
def test_a_photo_that_is_no_square_is_neither_squeezed_nor_shifted(size):
    """Sheet 4.4: the parallel painting squeezes it and shows its padding."""
    height, width = size
    down, across = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    photo = torch.stack([down, across, torch.full(size, 0.5)])
    painting = paint(photo, PaintSettings(levels=2, method="greedy"), BRUSH, None)
    pixels = painting.render(height, width).permute(2, 0, 1).float() / 255
    error = (pixels - photo).abs()
    assert error.mean() < 0.05
    for side in (error[:, :6], error[:, -6:], error[..., :6], error[..., -6:]):
        assert side.mean() < 0.08


def test_frames_of_a_second_photo_begin_anew():
    """Sheet 4.2: the reference numbers frames by a global counter, and crops those of the last pass wrongly."""
    for seed in range(2):
        painted.draw_photo(f"in/{seed}.png", seed)
    assert (
        painted.paint("in", "-o", "out", "--animate", "film", "--frames", 4, "--canvas-color", "white") == 0
    )
    for film in sorted(Path("film").rglob("*.webp")):
        with Image.open(film) as opened:
            frames = opened.n_frames
            opened.seek(0)
            first = np.asarray(opened.convert("RGB")).astype(int)
            opened.seek(frames - 1)
            last = np.asarray(opened.convert("RGB")).astype(int)
        assert (first > 250).all()
        assert first.shape == last.shape == (painted.SIDE, painted.SIDE, 3)
        still = painted.pixels(f"out/{film.name.replace('.webp', '.png')}")
        assert np.abs(last - still).mean() < 8
    assert len(list(Path("film").rglob("*.webp"))) == 2


def test_memory_follows_the_paint_and_not_windows_around_it():
    """Sheet 4.5, 12 and 7: the reference renders every stroke in a window of four times its patch, in nine copies."""
    random = torch.Generator().manual_seed(0)
    uniform = torch.rand(500, 5, generator=random)
    geometry = torch.cat([200 + 600 * uniform[:, :2], 4 + 60 * uniform[:, 2:4], uniform[:, 4:]], dim=1)
    touched = touch(BRUSH, geometry, 1000, 1000)
    # Each its own pixels, with one around them for the filter; rows of turned marks begin and end on whole pixels.
    boxes = (geometry[:, 2] + 2) * (geometry[:, 3] + 2)
    assert len(touched.place) < 1.1 * float(boxes.sum())


def test_painting_twice_in_one_process_is_painting_the_same():
    """Sheet 4.2: state that is left in the module changes the next picture."""
    photo = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(1))
    first, again = (paint(photo, PaintSettings(levels=1, method="greedy"), BRUSH, None) for _ in range(2))
    assert torch.equal(first.shape_params, again.shape_params)
    assert torch.equal(first.colors, again.colors)
