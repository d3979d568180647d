"""Strokes as pixels, one and many, against the renderer's equations worked out again in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gtool.strokes import settings
from gtool.strokes.brush import FINEST, HALF_HEIGHT, HALF_WIDTH, MASTER, load_brush, make_brush
from gtool.strokes.canvas import draw_on
from gtool.strokes.renderer import Touched, composite, layers, render, touch
from tests.strokes.examples import BRUSHES, brush_named, colors, strokes

SIDE = 128
# x, y, width, height in pixels, theta in units of pi: both orders of the sides, every quadrant, off the grid.
KNOWN = [
    [64.3, 64.2, 33.0, 97.0, 0.0],
    [60.6, 71.6, 28.0, 88.0, 0.2],
    [66.2, 56.8, 80.0, 25.0, 0.45],
    [65.0, 63.0, 36.0, 72.0, 0.8],
    [62.0, 66.0, 60.0, 50.0, 1.3],
    [40.0, 80.0, 48.0, 48.0, 0.65],
]


# A brush whose picture is a formula: smooth, zero at the rim, different along u, along v and in every corner.


def smooth_mask(u, v):
    inside = (np.abs(u - 0.5) < 0.5) & (np.abs(v - 0.5) < 0.5)
    return (
        inside * 0.25 * (1 - np.cos(2 * np.pi * u)) * (1 - np.cos(2 * np.pi * v)) * (0.3 + 0.5 * u + 0.2 * v)
    )


def smooth_shade(u, v):
    return 1 + 0.4 * (u - 0.5) - 0.3 * (v - 0.5)


@pytest.fixture(scope="module")
def smooth_brush():
    v, u = np.meshgrid(*[(np.arange(FINEST) + 0.5) / FINEST] * 2, indexing="ij")
    return make_brush("smooth", np.stack([smooth_mask(u, v), smooth_shade(u, v)]).astype(np.float32))


@pytest.fixture(params=BRUSHES)
def brush(request):
    return brush_named(request.param)


def equations(stroke, side):
    """u and v (side, side) of the pixels' centres."""
    x, y, width, height, theta = stroke
    s, c = np.sin(np.pi * theta), np.cos(np.pi * theta)
    down, right = np.meshgrid(*[np.arange(side) + 0.5] * 2, indexing="ij")
    u = 0.5 + (c * (right - x) + s * (down - y)) / width
    v = 0.5 + (-s * (right - x) + c * (down - y)) / height
    return u, v


# One stroke.


@pytest.mark.parametrize("stroke", KNOWN)
def test_a_mark_lies_where_the_equations_put_it(smooth_brush, stroke):
    x, y, width, height, theta = stroke
    # Bristles run along the longer side: a lying stroke is an upright one turned by a quarter.
    u, v = equations([x, y, height, width, theta - 0.5] if width > height else stroke, SIDE)
    mask, shaded = (x[0].numpy() for x in render(smooth_brush, torch.tensor([stroke]), SIDE, SIDE))
    expected = smooth_mask(u, v)
    assert expected.max() > 0.4
    assert np.abs(mask - expected).max() < 0.01
    grid = np.meshgrid(*[(np.arange(200) + 0.5) / 200] * 2)
    mean = (smooth_mask(*grid) * smooth_shade(*grid)).sum() / smooth_mask(*grid).sum()
    assert np.abs(shaded - expected * smooth_shade(u, v) / mean).max() < 0.01


@pytest.mark.parametrize("kind", settings.BRUSHES)
@pytest.mark.parametrize("theta", [0.0, 0.15, 0.5, 0.7])
def test_a_mark_has_the_place_the_turn_and_the_size_of_its_stroke(kind, theta):
    mask = render(load_brush(kind), torch.tensor([[60.0, 66.0, 24.0, 96.0, theta]]), 128, 128)[0][0].numpy()
    u, v = equations([60, 66, 24, 96, theta], 128)
    weights = mask / mask.sum()
    assert abs((weights * u).sum() - 0.5) < 0.06
    # The far end of the dry brush runs out of paint.
    assert abs((weights * v).sum() - 0.5) < (0.12 if kind == "dry" else 0.04)
    inked = mask > 0.5
    assert np.abs(u[inked] - 0.5).max() == pytest.approx(HALF_WIDTH, abs=0.05)
    assert np.abs(v[inked] - 0.5).max() == pytest.approx(HALF_HEIGHT, abs=0.05)
    down, right = np.meshgrid(*[np.arange(128) + 0.5] * 2, indexing="ij")
    spread = np.cov(np.stack([right.ravel(), down.ravel()]), aweights=mask.ravel())
    axis = np.linalg.eigh(spread)[1][:, 1]  # the long one, which lies along v
    assert abs(axis @ [-np.sin(np.pi * theta), np.cos(np.pi * theta)]) > 0.995


def test_bristles_run_along_the_longer_side(brush):
    """Shade changes more from one bristle to the next than along them, whichever side is longer, by however little."""
    for sides, across in (([40, 120], 1), ([120, 40], 0), ([80, 81], 1), ([81, 80], 0)):
        mask, shaded = render(brush, torch.tensor([[64.0, 64.0, *map(float, sides), 0.0]]), 128, 128)
        shade = torch.where(mask[0] > 0.95, shaded[0] / mask[0], torch.nan)[40:88, 40:88]
        step = [torch.diff(shade, dim=dim).abs().nanmean() for dim in (0, 1)]
        if brush.name != "ink":  # noise without bristles
            assert step[across] > 2 * step[1 - across]


def test_half_a_turn_turns_the_mark_around(smooth_brush):
    one, other = (
        render(smooth_brush, torch.tensor([[32.0, 32, 20, 50, t]]), 64, 64)[0][0] for t in (0.3, 1.3)
    )
    torch.testing.assert_close(one, other.flip(0, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [1.0, 4.0, 17.0, 60.0, 400.0])
@pytest.mark.parametrize("theta", [0.0, 0.5, 0.37])
def test_a_stroke_has_on_average_the_colour_it_was_given(brush, size, theta):
    """The released pictures darken it by 9 %."""
    side = int(1.5 * size) + 8
    geometry = torch.tensor([[side / 2 + 0.3, side / 2, 0.6 * size, size, theta]])
    mask, shaded = render(brush, geometry, side, side)
    assert float(shaded.sum() / mask.sum()) == pytest.approx(1, abs=0.01)


def test_a_canvas_under_many_strokes_of_a_colour_has_that_colour(brush):
    geometry = strokes(1500, 96.0)
    geometry[:, 2:4] = geometry[:, 2:4].clamp(min=8)
    canvas = torch.zeros(96, 96, 3)
    draw_on(canvas, geometry, torch.tensor([[0.3, 0.6, 0.75]]).expand(1500, 3), brush)
    torch.testing.assert_close(canvas.mean(dim=(0, 1)), torch.tensor([0.3, 0.6, 0.75]), rtol=0.01, atol=0)


@pytest.mark.parametrize("theta", [0.0, 0.21, 0.5])
def test_marks_thinner_than_a_pixel_fade_and_do_not_break(brush, theta):
    widths = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.2, 0.05, 0.01, 0.0])
    geometry = torch.tensor([[24.2, 23.7, 0.0, 30.0, theta]]).repeat(len(widths), 1)
    geometry[:, 2] = widths
    mask, _ = render(brush, geometry, 48, 48)
    paint = mask.sum(dim=(1, 2))
    torch.testing.assert_close(paint, paint[0] * widths / 2, rtol=0.12, atol=1e-6)
    # Along the middle of the mark there is paint at every step.
    along = torch.linspace(-8, 8, 33)
    rows = (23.7 + along * np.cos(np.pi * theta)).long()
    columns = (24.2 - along * np.sin(np.pi * theta)).long()
    beside = torch.nn.functional.max_pool2d(mask[:, None], 3, 1, 1)[:, 0]
    through = beside[:-1, rows, columns]
    assert (through > 0.3 * through.amax(dim=1, keepdim=True)).all() or brush.name == "dry"


def test_gradients_are_those_of_small_differences(smooth_brush):
    """Up to the kinks of bilinear sampling, which the differences smooth out."""
    random = np.random.default_rng(0)
    weights = torch.from_numpy(random.uniform(0, 1, (4, 4))).float()
    weights = torch.nn.functional.interpolate(weights[None, None], size=(SIDE, SIDE), mode="bicubic")[0]

    def loss(geometry):
        mask, shaded = render(smooth_brush, geometry, SIDE, SIDE)
        return (mask * weights).sum(dim=(1, 2)) + 0.5 * (shaded * weights.flip(1)).sum(dim=(1, 2))

    geometry = torch.tensor(KNOWN[:5], requires_grad=True)
    (slopes,) = torch.autograd.grad(loss(geometry).sum(), geometry)
    for column, step in enumerate([0.03, 0.03, 0.03, 0.03, 0.0005]):
        moved = torch.zeros(5)
        moved[column] = step
        with torch.no_grad():
            difference = (loss(geometry + moved) - loss(geometry - moved)) / (2 * step)
        scale = difference.abs().mean()
        assert ((slopes[:, column] - difference).abs() < 0.03 * difference.abs() + 0.12 * scale).all()


# Many strokes.


def test_touching_gives_what_rendering_gives(brush):
    geometry = torch.cat(
        [strokes(60, 80.0), torch.tensor([[-200.0, 30, 600, 900, 0.4], [40, 40, 1, 70, 0.5]])]
    )
    for height, width in ((80, 61), (33, 80)):
        mask, shaded = render(brush, geometry, height, width)
        touched = touch(brush, geometry, height, width)
        for dense, values in ((mask, touched.mask), (shaded, touched.shaded)):
            sparse = torch.zeros(len(geometry), height * width)
            sparse[touched.stroke, touched.place] = values
            torch.testing.assert_close(sparse.view_as(dense), dense, atol=2e-4, rtol=0)


def test_a_mark_much_larger_than_its_picture_has_the_same_edge_everywhere(brush):
    """Filtering reaches further around it: nothing of that is cut off."""
    size = 12.0 * MASTER
    geometry = torch.tensor(
        [[-size / 2 + 20, 40.0, size, 0.8 * size, 0.0], [40.0, size / 2 + 25, size, size, 0.1]]
    )
    mask, _ = render(brush, geometry, 80, 80)
    touched = touch(brush, geometry, 80, 80)
    sparse = torch.zeros(2, 80 * 80)
    sparse[touched.stroke, touched.place] = touched.mask
    torch.testing.assert_close(sparse.view_as(mask), mask, atol=5e-4, rtol=0)


def test_touching_lists_every_pixel_of_a_stroke_once(brush):
    geometry = strokes(80, 70.0, seed=3)
    touched = touch(brush, geometry, 70, 70)
    pairs = touched.stroke * 70 * 70 + touched.place
    assert len(pairs) == len(pairs.unique())
    assert touched.place.min() >= 0
    assert touched.place.max() < 70 * 70


@pytest.mark.parametrize("opacity", [1.0, 0.6])
def test_painting_by_layers_is_painting_stroke_after_stroke(brush, opacity):
    geometry, tints = strokes(150, 72.0, seed=5), colors(150)
    canvas = torch.full((50, 72, 3), 0.4)
    mask, shaded = (x[..., None] * opacity for x in render(brush, geometry, 50, 72))
    expected = canvas
    for number in range(150):
        expected = (expected * (1 - mask[number]) + shaded[number] * tints[number]).clamp(0, 1)
    one_by_one = canvas.clone()
    for number in range(150):
        only = slice(number, number + 1)
        draw_on(one_by_one, geometry[only], tints[only], brush, opacity)
    draw_on(canvas, geometry, tints, brush, opacity)
    torch.testing.assert_close(canvas, expected, atol=2e-3, rtol=0)
    assert torch.equal(canvas, one_by_one)


def test_strokes_of_a_layer_share_no_pixel_and_keep_their_order(brush):
    geometry = strokes(400, 120.0, seed=7)
    found = layers(geometry, 90, 120)
    assert len(found) < 200
    layer_of = torch.full((400,), -1)
    for number, layer in enumerate(found):
        touched = touch(brush, geometry[layer], 90, 120)
        assert len(touched.place) == len(touched.place.unique())
        assert (layer.diff() > 0).all()
        assert (layer_of[layer] == -1).all()
        layer_of[layer] = number
    touched = touch(brush, geometry, 90, 120)
    seen = touched.stroke.unique()
    assert (layer_of[seen] >= 0).all()
    # On every pixel strokes come in layers that rise with their number.
    for place in range(0, 90 * 120, 97):
        there = layer_of[touched.stroke[touched.place == place]]
        assert (there.diff() > 0).all()


def test_strokes_outside_the_canvas_are_in_no_layer():
    outside = [[-90.0, 20, 30, 40, 0.1], [20, -90, 30, 40, 0.1], [200, 20, 30, 40, 0], [20, 200, 30, 40, 0]]
    assert layers(torch.tensor(outside), 64, 64) == []
    found = layers(torch.tensor([*outside, [32.0, 32, 20, 20, 0], *outside]), 64, 64)
    assert [layer.tolist() for layer in found] == [[4]]


def test_no_strokes_are_no_layers():
    assert layers(torch.empty(0, 5), 64, 64) == []


HARMLESS = {
    "off the canvas": [[-80.0, -90, 30, 60, 0.2], [300, 20, 30, 60, 0.2], [1e7, -1e7, 5, 5, 0]],
    "without area": [[32.0, 32, 0, 0, 0.2], [20, 20, 0, 30, 0.9], [40, 40, 30, 0, 0.3]],
    "negative": [[32.0, 32, -5, 20, 0.2], [32, 32, 20, -5, 0.2]],
    "none": np.zeros((0, 5)).tolist(),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_strokes_that_cannot_be_seen_change_nothing(brush, name):
    geometry = torch.tensor(HARMLESS[name]).view(-1, 5)
    canvas = torch.full((64, 64, 3), 0.37)
    draw_on(canvas, geometry, torch.zeros(len(geometry), 3), brush)
    torch.testing.assert_close(canvas, torch.full((64, 64, 3), 0.37), atol=1e-6, rtol=0)
    if len(geometry):
        mask, shaded = render(brush, geometry, 64, 64)
        assert mask.abs().max() < 1e-4
        assert shaded.abs().max() < 1e-4


@pytest.mark.parametrize("size", [1e3, 1e5, 1e7])
def test_huge_strokes_cover_the_canvas(brush, size):
    canvas = torch.zeros(48, 64, 3)
    # At a place of the mark where the dry brush has paint: u = 0.66, v = 0.2.
    geometry = torch.tensor([[32 - 0.16 * size, 24 + 0.45 * size, size, 1.5 * size, 0.0]])
    draw_on(canvas, geometry, torch.full((1, 3), 0.5), brush)
    assert torch.isfinite(canvas).all()
    assert (canvas - 0.5).abs().max() < 0.2


def test_composite_leaves_out_strokes_that_do_not_help(brush):
    geometry = torch.tensor([[16.0, 16, 18, 26, 0.1], [48.0, 48, 18, 26, 0.4], [48.0, 16, 20, 20, 0.0]])
    tints = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.5, 0.5, 0.5]])
    canvas, target = torch.full((4096, 3), 0.5), torch.full((4096, 3), 0.5)
    target.view(64, 64, 3)[:32, :32] = tints[0]
    kept = composite(canvas, touch(brush, geometry, 64, 64), tints, target=target)
    assert kept.tolist() == [True, False, False]
    painted = canvas.view(64, 64, 3)
    assert (painted[32:] == 0.5).all()
    assert (painted[:, 32:] == 0.5).all()
    assert painted[16, 16, 0] > 0.7


def test_composite_asks_for_the_min_gain(smooth_brush):
    """A stroke that covers wholly and is right gains over its paint what the canvas was wrong by."""
    touched = Touched(torch.arange(10), torch.zeros(10, dtype=torch.long), torch.ones(10), torch.ones(10))
    for least, kept in ((0.09, True), (0.11, False)):
        canvas = torch.full((10, 3), 0.4)
        done = composite(
            canvas, touched, torch.full((1, 3), 0.5), target=torch.full((10, 3), 0.5), min_gain=least
        )
        assert done.tolist() == [kept]
        assert canvas[0, 0] == pytest.approx(0.5 if kept else 0.4)


def test_opacity_mixes_paint_and_canvas(smooth_brush):
    touched = Touched(torch.arange(4), torch.zeros(4, dtype=torch.long), torch.ones(4), torch.full((4,), 1.1))
    canvas = torch.full((4, 3), 0.2)
    composite(canvas, touched, torch.tensor([[0.5, 0.0, 1.0]]), opacity=0.25)
    torch.testing.assert_close(canvas[0], torch.tensor([0.2875, 0.15, 0.425]))
