"""Paintings as SVG: read back as XML, every stroke where the renderer has it, marks that cover what brushes do."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from gtool.errors import CheckpointError
from gtool.paint.svg import MAX_CORNERS, contours, save_svg, trace
from gtool.strokes.brush import from_ink, make_brush
from gtool.strokes.renderer import render
from tests.strokes.examples import BRUSHES, a_painting, brush_named

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"


@pytest.fixture(params=BRUSHES)
def brush(request):
    return brush_named(request.param)


def written(tmp_path, painting, longer=300):
    save_svg(tmp_path / "a.svg", painting, longer)
    return ET.parse(tmp_path / "a.svg").getroot()


def matrix(use):
    """The transform of a `<use>`: (2, 3), to be multiplied with (u, v, 1)."""
    numbers = re.fullmatch(r"matrix\((.+)\)", use.get("transform"))[1].split()
    return np.array([float(number) for number in numbers]).reshape(3, 2).T


def polygons(path):
    """The closed lines of a `<path>`: (K, 2) each."""
    lines = path.get("d").removesuffix("Z").split("Z")
    return [np.array([point.split() for point in line[1:].split("L")], float) for line in lines]


def area(line):
    u, v = line.T
    return float((u * np.roll(v, -1) - v * np.roll(u, -1)).sum() / 2)


# The file.


def test_every_stroke_is_one_use_in_painting_order(tmp_path):
    painting = a_painting(250)
    root = written(tmp_path, painting)
    assert root.tag == f"{SVG}svg"
    uses = root.findall(f"{SVG}use")
    assert len(uses) == len(list(root.iter(f"{SVG}use"))) == 250
    names = {group.get("id") for group in root.iter(f"{SVG}g")}
    assert {use.get(HREF) for use in uses} <= {f"#{name}" for name in names}
    centres = np.array([matrix(use) @ [0.5, 0.5, 1] for use in uses])
    np.testing.assert_allclose(centres, 300 * painting.shape_params[:, :2].numpy(), atol=0.02)


@pytest.mark.parametrize("longer", [64, 300, 5000])
def test_the_unit_square_lies_where_the_renderer_puts_it(tmp_path, longer):
    """u = 1/2 + (c dx + s dy) / width, v = 1/2 + (c dy - s dx) / height, in pixels of the file."""
    painting = a_painting(60)
    uses = written(tmp_path, painting, longer).findall(f"{SVG}use")
    for use, stroke in zip(uses, painting.shape_params.double().numpy(), strict=True):
        x, y, width, height = longer * stroke[:4]
        theta = stroke[4]
        if width > height:  # bristles run along the longer side
            width, height, theta = height, width, theta - 0.5
        s, c = np.sin(np.pi * theta), np.cos(np.pi * theta)
        for u, v in ((0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5), (0.3, 0.8)):
            right, down = matrix(use) @ [u, v, 1] - (x, y)
            # Two decimals each of six numbers.
            assert c * right + s * down == pytest.approx((u - 0.5) * width, abs=0.025)
            assert c * down - s * right == pytest.approx((v - 0.5) * height, abs=0.025)


def test_the_picture_has_the_size_that_was_asked_for(tmp_path):
    for aspect, size in ((1.5, (200, 300)), (0.5, (300, 150))):
        root = written(tmp_path, a_painting(3, aspect=aspect))
        height, width = size
        assert (root.get("width"), root.get("height")) == (str(width), str(height))
        assert root.get("viewBox") == f"0 0 {width} {height}"
        (ground,) = root.findall(f"{SVG}rect")
        assert (ground.get("width"), ground.get("height")) == (str(width), str(height))
        assert ground.get("fill") == "#3380b2"


def test_bristles_run_along_the_longer_side(tmp_path):
    params = torch.tensor(
        [[0.5, 0.5, 0.1, 0.4, 0.2], [0.5, 0.5, 0.4, 0.1, 0.7]]
    )  # one stroke, written in two ways
    one, other = written(tmp_path, a_painting(2, shape_params=params)).findall(f"{SVG}use")
    assert one.get(HREF) == other.get(HREF)
    np.testing.assert_allclose(matrix(one), matrix(other), atol=0.02)


def test_opacity_is_of_each_mark_as_a_whole(tmp_path):
    for opacity, text in ((1.0, None), (0.8, ".8"), (0.125, ".125")):
        root = written(tmp_path, a_painting(3, opacity=opacity))
        assert {group.get("opacity") for group in root.iter(f"{SVG}g")} == {text}
        assert all(use.get("opacity") is None for use in root.iter(f"{SVG}use"))


def test_files_stay_small(tmp_path):
    save_svg(tmp_path / "few.svg", a_painting(10), 1000)
    save_svg(tmp_path / "many.svg", a_painting(1010), 1000)
    few, many = ((tmp_path / name).stat().st_size for name in ("few.svg", "many.svg"))
    assert few < 20_000
    assert (many - few) / 1000 < 105


def test_a_painting_without_strokes_is_its_ground(tmp_path):
    root = written(tmp_path, a_painting()[:0])
    assert root.findall(f"{SVG}use") == []
    assert len(root.findall(f"{SVG}rect")) == 1


def test_a_brush_of_ones_own_is_traced(tmp_path):
    ink = np.zeros((50, 50))
    ink[10:40, 20:30] = 1
    root = written(tmp_path, a_painting(3, brush=make_brush("mine", from_ink(ink))))
    outline = polygons(root.find(f".//{SVG}g[@id='m0']")[0])
    assert len(outline) == 1
    np.testing.assert_allclose(outline[0].min(0), [0.4, 0.2], atol=0.02)
    np.testing.assert_allclose(outline[0].max(0), [0.6, 0.8], atol=0.02)


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_svg(tmp_path / "file" / "a.svg", a_painting(3), 100)


# Marks.


def test_a_mark_covers_what_the_brush_covers(brush):
    outline = trace(brush).paint
    assert sum(map(area, outline)) == pytest.approx(brush.coverage, abs=0.03)
    points = np.concatenate(outline)
    assert points.min() >= -0.01
    assert points.max() <= 1.01


def test_outlines_have_few_corners(brush):
    mark = trace(brush)
    for lines in (mark.paint, *(tone for tone, _ in mark.tones)):
        assert all(3 <= len(line) <= MAX_CORNERS for line in lines)
    assert sum(map(len, mark.paint)) < 150


def test_tones_leave_the_stroke_its_colour(brush):
    """Lightest tone, a little darker within, darker still within that: on average the shade 1."""
    mark = trace(brush)
    whole = sum(map(area, mark.paint))
    shade, within = mark.lightest, [sum(map(area, lines)) / whole for lines, _ in mark.tones]
    (_, first), (_, second) = mark.tones
    mean = shade * (1 - within[0] * first - within[1] * (1 - first) * second)
    assert mean == pytest.approx(1, abs=1e-6)
    assert 1 <= shade < 1.15
    assert 0 <= within[1] <= within[0] < 0.75
    if brush.name != "ink":
        assert first > 0.02
        assert second > 0.02


def test_dark_places_lie_within_the_paint(brush):
    points = np.concatenate([line for lines, _ in trace(brush).tones for line in lines])
    assert (points > 0).all()
    assert (points < 1).all()


def fill(canvas, lines, transform, color, opacity):
    """Paint polygons over uint8 (H, W, 3), holes left out, as a viewer does; four samples a pixel each way."""
    height, width, _ = canvas.shape
    sheet = Image.new("L", (4 * width, 4 * height))
    for line in sorted(lines, key=lambda line: -abs(area(line))):
        points = (np.c_[line, np.ones(len(line))] @ transform.T * 4).ravel().tolist()
        ImageDraw.Draw(sheet).polygon(points, fill=255 if area(line) > 0 else 0)
    cover = np.asarray(sheet.resize((width, height), Image.Resampling.BOX), float)[..., None] / 255 * opacity
    return canvas * (1 - cover) + np.array(color) * cover


def drawn(root, height, width):
    """A small viewer: what the file shows, float (H, W, 3) in [0, 255]."""
    colors = {"#000": (0, 0, 0)}
    groups = {f"#{group.get('id')}": group for group in root.iter(f"{SVG}g")}

    def color(text):
        return colors.get(text) or tuple(bytes.fromhex(text[1:]))

    canvas = np.broadcast_to(np.array(color(root.find(f"{SVG}rect").get("fill")), float), (height, width, 3))
    for use in root.findall(f"{SVG}use"):
        for path in groups[use.get(HREF)]:
            paint = color(path.get("fill", use.get("fill")))
            # Lines of the transposed mark run the other way round.
            lines = polygons(path)
            outer = max(lines, key=lambda line: abs(area(line)))
            lines = lines if area(outer) > 0 else [line[::-1] for line in lines]
            canvas = fill(canvas, lines, matrix(use), paint, float(path.get("fill-opacity", 1)))
    return canvas


def test_what_a_viewer_shows_is_what_is_rendered(tmp_path, brush):
    """Against a viewer of our own; tests/benchmarks/svg_in_chromium.py asks a browser."""
    painting = a_painting(40, brush=brush.name)
    painting.shape_params[:, 2:4] = painting.shape_params[:, 2:4].clamp(min=0.06)
    shown = drawn(written(tmp_path, painting, 144), 96, 144)
    rendered = painting.render(96, 144).numpy().astype(float)
    ground = np.full_like(rendered, 1) * rendered[0, 0]
    assert np.abs(rendered - ground).mean() > 20
    assert np.abs(shown - rendered).mean() < (9 if brush.name == "dry" else 5)
    assert abs((shown - rendered).mean()) < 1.5


# Lines around fields.


def test_contours_go_around_what_is_above():
    y, x = np.meshgrid(*[(np.arange(60) + 0.5) / 60] * 2, indexing="ij")
    distance = np.hypot(x - 0.4, y - 0.6)
    (line,) = contours(-distance, -0.25, -1)
    np.testing.assert_allclose(np.hypot(line[:, 0] - 0.4, line[:, 1] - 0.6), 0.25, atol=2e-3)
    assert area(line) == pytest.approx(np.pi * 0.25**2, rel=0.01)


def test_holes_run_the_other_way_round():
    y, x = np.meshgrid(*[(np.arange(60) + 0.5) / 60] * 2, indexing="ij")
    ring = -np.abs(np.hypot(x - 0.5, y - 0.5) - 0.3)
    areas = sorted(area(line) for line in contours(ring, -0.1, -1))
    assert areas == pytest.approx([-np.pi * 0.2**2, np.pi * 0.4**2], rel=0.02)


def test_lines_close_at_the_border_and_saddles_stay_apart():
    (whole,) = contours(np.ones((4, 5)), 0.5)
    assert area(whole) == pytest.approx(1, abs=0.03)  # less its corners
    chequers = np.indices((6, 6)).sum(0) % 2
    lines = contours(chequers.astype(float), 0.5)
    assert len(lines) == 18
    assert all(area(line) > 0 for line in lines)
    assert contours(np.zeros((4, 4)), 0.5) == []


def test_upright_marks_look_like_upright_strokes(brush):
    """The mark on a grid against a large stroke of the renderer."""
    lines = trace(brush).paint
    flat = fill(np.zeros((96, 96, 3)), lines, np.array([[96.0, 0, 0], [0, 96, 0]]), (255, 255, 255), 1)
    mask, _ = render(brush, torch.tensor([[48.0, 48, 96, 960, 0.0]]), 96, 96)
    middle = flat[48, :, 0] / 255
    assert np.abs(middle - mask[0, 48].numpy()).mean() < (0.2 if brush.name == "dry" else 0.03)
