"""Brushes, and paintings as pixels of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gtool.errors import DataError
from gtool.strokes import canvas as painting_module
from gtool.strokes.brush import HALF_HEIGHT, HALF_WIDTH, from_ink, load_brush, make_brush
from gtool.strokes.canvas import uncovered
from gtool.strokes.renderer import render
from tests.strokes.examples import BRUSHES, a_painting, brush_named


@pytest.fixture(params=BRUSHES)
def brush(request):
    return brush_named(request.param)


# Brushes.


def test_brushes_have_a_sensible_silhouette(brush):
    assert (0.4 if brush.name != "ink" else 0.9) < brush.coverage <= 1
    if brush.name != "ink":
        assert brush.coverage < 4 * HALF_WIDTH * HALF_HEIGHT
    mask = brush.atlas[0, 0]
    assert mask.min() == 0
    assert mask.max() <= 1 + 1e-6


def test_every_size_of_a_brush_has_the_same_paint_and_shade(brush):
    sizes = [int(size) for size in brush.sizes]
    corners = [int(corner) for corner in brush.corners]
    for height, top in zip(sizes, corners, strict=True):
        for width, left in zip(sizes, corners, strict=True):
            mask, shaded = brush.atlas[0, :, top : top + height, left : left + width].mean(dim=(1, 2))
            assert float(mask) == pytest.approx(brush.coverage, rel=1e-3)
            assert float(shaded) == pytest.approx(brush.coverage, rel=1e-3)


def test_pictures_of_a_brush_are_apart_from_each_other(brush):
    bare = torch.ones(brush.atlas.shape[-1], dtype=torch.bool)
    for corner, size in zip(brush.corners.long(), brush.sizes.long(), strict=True):
        bare[corner : corner + size] = False
    assert bare.sum() == 2 * len(brush.sizes)
    assert brush.atlas[..., bare].abs().max() == 0
    assert brush.atlas[..., bare, :].abs().max() == 0


def test_a_seed_draws_another_brush_of_the_kind():
    one, same, other = (load_brush.__wrapped__("flat", seed).atlas for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert 0.005 < (one - other).abs().mean() < 0.1


def test_an_unknown_brush_is_refused_with_the_nearest_name():
    with pytest.raises(DataError, match="brush `flatt` does not exist; did you mean `flat`"):
        load_brush("flatt")


def test_a_picture_without_ink_is_refused():
    with pytest.raises(DataError, match="brush mine: there is no ink"):
        make_brush("mine", from_ink(np.zeros((20, 30))))


def test_a_scan_is_stretched_over_the_stroke():
    ink = np.zeros((40, 20))
    ink[:20] = 1
    mask, _ = render(make_brush("half", from_ink(ink)), torch.tensor([[32.0, 32, 20, 56, 0.0]]), 64, 64)
    assert mask[0, 6:31, 24:40].min() > 0.9
    assert mask[0, 34:].max() < 0.01


# Paintings.


def test_bands_give_the_pixels_of_one_piece(brush, monkeypatch):
    painting = a_painting(300)
    whole = painting.render(60, 90)
    for rows in (7, 16, 59):
        monkeypatch.setattr(painting_module, "BAND_PIXELS", rows * 90)
        joined = painting.render(60, 90).int()
        # Places are rounded otherwise from another origin.
        assert (joined - whole.int()).abs().max() <= 1
        assert (joined != whole.int()).float().mean() < 1e-3


def test_a_painting_is_rendered_the_same_every_time(brush):
    one, other = (a_painting().render(64, 96) for _ in range(2))
    assert torch.equal(one, other)
    assert one.dtype == torch.uint8
    assert one.shape == (64, 96, 3)


def test_a_painting_looks_the_same_at_every_size():
    painting = a_painting(150)
    small = painting.render(64, 96).float()
    large = painting.render(256, 384).float()
    shrunk = torch.nn.functional.avg_pool2d(large.permute(2, 0, 1), 4).permute(1, 2, 0)
    assert (small - shrunk).abs().mean() < 4


def test_bare_ground_is_the_ground():
    bare = a_painting()[:0].render(5, 7)
    assert (bare == torch.tensor([51, 128, 178], dtype=torch.uint8)).all()


def test_the_first_strokes_are_a_painting():
    painting = a_painting(40)
    assert len(painting) == 40
    part = painting[:7]
    assert (len(part), len(part.colors), len(part.levels)) == (7, 7, 7)
    assert torch.equal(part.shape_params, painting.shape_params[:7])
    assert (part.ground, part.aspect) == (painting.ground, painting.aspect)


@pytest.mark.parametrize(
    ("aspect", "longer", "size"),
    [
        (1.5, 96, (64, 96)),
        (2 / 3, 96, (96, 64)),
        (1, 50, (50, 50)),
        (1000, 20, (1, 20)),
        (640 / 427, 640, (427, 640)),
    ],
)
def test_a_painting_knows_its_size(aspect, longer, size):
    assert a_painting(1, aspect=aspect).size(longer) == size


def test_uncovered_is_the_share_of_bare_canvas():
    brush = load_brush("flat")
    assert uncovered(a_painting()[:0], 40, 60) == 1
    one = a_painting(1, shape_params=torch.tensor([[0.5, 0.33, 0.4, 0.6, 0.0]]), opacity=0.3)
    expected = 1 - brush.coverage * 0.4 * 0.6 / (60 / 90)
    assert uncovered(one, 60, 90) == pytest.approx(expected, abs=0.01)
    everywhere = a_painting(1, shape_params=torch.tensor([[0.5, 0.33, 9.0, 9.0, 0.0]]))
    assert uncovered(everywhere, 60, 90) == 0
