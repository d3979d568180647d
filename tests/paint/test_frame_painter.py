"""Frames of a clip: what is still keeps its strokes, and what moves takes them along."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gtool.models.paint_transformer.network import Proposals
from gtool.paint.motion import displacement, optical_flow, warp
from gtool.paint.video import FramePainter
from gtool.strokes.brush import load_brush
from gtool.strokes.canvas import cells_of, overlaps, sample_under, visible_ink
from gtool.strokes.painting import paint as paint_photo
from gtool.strokes.settings import PaintSettings
from tests.helpers.clips import HEIGHT, WIDTH, as_tensor, ground, moving, through_a_codec

BRUSH = load_brush("flat")
PLAN = PaintSettings(levels=2, method="greedy", strokes_per_patch=4)

FRAMES = {
    "clean": lambda: [moving(number) for number in range(6)],
    "noise of a sensor": lambda: [moving(number, 8.0) for number in range(6)],
    "noise of a codec": lambda: through_a_codec([moving(number, 3.0) for number in range(6)]),
}


def rows(painting, choose) -> list[tuple[float, ...]]:
    """Strokes as numbers, in their order."""
    table = torch.cat([painting.shape_params, painting.colors, painting.levels[:, None].float()], 1)
    return [tuple(row) for row in table[choose].tolist()]


@pytest.mark.parametrize("kind", FRAMES)
def test_strokes_of_still_places_are_the_same_in_every_frame(kind):
    painter, found, pictures = FramePainter(PLAN, BRUSH, None), [], []
    for frame in FRAMES[kind]():
        painting = painter.paint(as_tensor(frame))
        # The disc ends at 30; a stroke of the finest passes reaches no further than 20 pixels beyond it.
        still = painting.shape_params[:, 1] * WIDTH > 56
        found.append(rows(painting, still))
        pictures.append(painting.render(HEIGHT, WIDTH))
    assert len(found[0]) > 60
    assert all(strokes == found[0] for strokes in found[1:])
    assert all(torch.equal(picture[70:], pictures[0][70:]) for picture in pictures[1:])
    assert painter.shots == 1


def test_what_moves_is_painted_where_it_is():
    painter = FramePainter(PLAN, BRUSH, None)
    for number in range(6):
        painting = painter.paint(as_tensor(moving(number)))
        pixels = painting.render(HEIGHT, WIDTH).float()
        red, green, blue = pixels[17:24, 17 + 8 * number : 24 + 8 * number].mean(dim=(0, 1)).tolist()
        assert min(red, green) > blue + 80
    still = paint_photo(as_tensor(moving(5)), PLAN, BRUSH, None)
    target = as_tensor(moving(5)).permute(1, 2, 0) * 255
    errors = [(made.render(HEIGHT, WIDTH) - target).abs().mean() for made in (painting, still)]
    assert errors[0] < 1.1 * errors[1]
    assert len(painting) < 1.4 * len(still)


def test_the_first_frame_is_painted_as_a_picture_is():
    frame = as_tensor(moving(0))
    first, still = FramePainter(PLAN, BRUSH, None).paint(frame), paint_photo(frame, PLAN, BRUSH, None)
    assert torch.equal(first.shape_params, still.shape_params)
    assert torch.equal(first.colors, still.colors)


@pytest.mark.parametrize("method", ["greedy", "random"])
def test_frames_are_a_function_of_the_seed(method):
    def strokes(seed):
        painter = FramePainter(replace(PLAN, method=method, seed=seed), BRUSH, None)
        return [painter.paint(as_tensor(moving(number))).shape_params for number in range(3)]

    one, same, other = strokes(1), strokes(1), strokes(2)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert one[2].shape != other[2].shape or not torch.equal(one[2], other[2])


def test_a_frame_like_the_last_one_is_not_painted_again():
    painter = FramePainter(PLAN, BRUSH, None)
    first = painter.paint(as_tensor(moving(0)))
    assert painter.paint(as_tensor(moving(0, 3.0))) is first
    assert painter.new_strokes == 0


def test_a_cut_begins_a_new_painting():
    painter = FramePainter(PLAN, BRUSH, None)
    painter.paint(as_tensor(moving(0)))
    other = torch.flip(1 - as_tensor(moving(0)), [2])
    after = painter.paint(other)
    assert painter.shots == 2
    assert torch.equal(after.colors, paint_photo(other, PLAN, BRUSH, None).colors)


def pan(number: int, right: float = 2.0, down: float = 0.0) -> torch.Tensor:
    """A frame of a camera that moves over a still picture."""
    picture = Image.fromarray(ground(HEIGHT + 40, WIDTH + 40))
    box = (right * number, down * number, right * number + WIDTH, down * number + HEIGHT)
    return as_tensor(np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=box)))


@pytest.mark.parametrize(("right", "down"), [(2.0, 0.0), (1.3, 0.7)])
def test_strokes_follow_a_camera_that_moves(right, down):
    painter, before, changes = FramePainter(PLAN, BRUSH, None), None, []
    for number in range(7):
        painting = painter.paint(pan(number, right, down))
        pixels = painting.render(HEIGHT, WIDTH).permute(2, 0, 1).float() / 255
        if before is not None:
            flow = torch.tensor([right, down])[:, None, None].expand(2, HEIGHT, WIDTH)
            difference = (pixels - warp(before, flow)).abs()[:, 4:-4, 4:-4]
            changes.append(float(difference.mean()))
            assert painter.new_strokes < 0.4 * len(painting)
        before = pixels
    assert painter.shots == 1
    once = [paint_photo(pan(number, right, down), PLAN, BRUSH, None) for number in (5, 6)]
    pictures = [made.render(HEIGHT, WIDTH).permute(2, 0, 1).float() / 255 for made in once]
    anew = float((pictures[1] - warp(pictures[0], flow)).abs()[:, 4:-4, 4:-4].mean())
    assert max(changes) < 0.5 * anew
    errors = [(made - pan(6, right, down)).abs() for made in (pixels, pictures[1])]
    assert errors[0].mean() < 1.15 * errors[1].mean()
    # What came into view is painted too.
    assert errors[0][:, :, -12:].mean() < 1.3 * errors[1][:, :, -12:].mean()


def test_strokes_follow_what_moves_before_still_ground():
    painter, found = FramePainter(PLAN, BRUSH, None), []
    picture = ground()
    for number in range(4):
        frame = ground().copy() // 2
        left = 30 + 2 * number
        frame[24:72, left : left + 48] = picture[:48, :48]
        painting = painter.paint(as_tensor(frame))
        found.append(painting)
    colors = [{tuple(color) for color in painting.colors.tolist()} for painting in found]
    inside = [
        tuple(color)
        for color, (x, y) in zip(found[0].colors.tolist(), found[0].shape_params[:, :2].tolist(), strict=True)
        if 40 < x * WIDTH < 68 and 34 < y * WIDTH < 62
    ]
    assert sum(color in colors[-1] for color in inside) > 0.7 * len(inside)


@pytest.mark.parametrize("motion", [(0.0, 0.0), (3.0, 0.0), (-1.3, 2.6), (14.0, 5.0)])
def test_the_flow_of_a_picture_is_found(motion):
    picture = as_tensor(ground(HEIGHT, WIDTH))
    flow = torch.tensor(motion)[:, None, None].expand(2, HEIGHT, WIDTH)
    found = optical_flow(picture, warp(picture, flow))
    inside = (found - flow)[:, 16:-16, 16:-16]
    assert inside.norm(dim=0).median() < 0.1
    points = torch.tensor([[60.0, 50.0], [80.0, 40.0]])
    assert torch.allclose(displacement(found, points), -torch.tensor(motion).expand(2, 2), atol=0.3)


def test_slow_drift_is_followed():
    """Compared with the frame before alone, 1/255 a frame would never be seen."""
    painter, frame = FramePainter(PLAN, BRUSH, None), ground() // 2
    for step in range(0, 60, 2):
        brighter = frame.astype(int)
        brighter[:, : WIDTH // 2] += step
        painting = painter.paint(as_tensor(brighter.astype(np.uint8)))
    pixels = painting.render(HEIGHT, WIDTH).float().numpy()
    assert painter.shots == 1
    assert abs((pixels - brighter)[:, : WIDTH // 2 - 8].mean()) < 12


def test_a_stroke_budget_is_kept_in_every_frame():
    painter = FramePainter(replace(PLAN, max_strokes=120), BRUSH, None)
    assert all(len(painter.paint(as_tensor(moving(number)))) <= 120 for number in range(5))


def test_the_network_looks_at_what_changed_alone():
    looked = []

    def predict(target, _canvas):
        looked.append(len(target))
        shape = torch.tensor([0.5, 0.5, 0.4, 0.4, 0.25]).expand(len(target), 8, 5)
        return Proposals(shape, torch.ones(len(target), 8))

    painter = FramePainter(replace(PLAN, method="predictor"), BRUSH, predict)
    painter.paint(as_tensor(moving(0)))
    first = sum(looked)
    looked.clear()
    painter.paint(as_tensor(moving(1)))
    assert 0 < sum(looked) < 0.6 * first


def test_what_lies_where_is_found():
    strokes = torch.tensor([[20.0, 20.0, 10.0, 10.0, 0.3], [60.0, 20.0, 10.0, 30.0, 0.5]])
    image = torch.zeros(1, 40, 80)
    image[:, :, :20] = 1
    assert sample_under(strokes, image)[0].mean(-1).tolist() == pytest.approx([0.5, 0.0], abs=0.15)
    cells = cells_of(strokes[:1], 10, 20, 4)
    assert cells[5, 5]
    assert not cells[:, 10:].any()
    assert overlaps(strokes, cells, 4).tolist() == [True, False]


def test_hidden_ink_is_told_from_what_is_seen():
    strokes = torch.tensor(
        [[20.0, 20.0, 10.0, 10.0, 0.0], [60.0, 20.0, 10.0, 10.0, 0.0], [20.0, 20.0, 24.0, 24.0, 0.0]]
    )
    share, place, stroke = visible_ink(BRUSH, strokes, 1.0, (40, 80))
    assert share[0] < 0.1
    assert share[1:].tolist() == pytest.approx([1, 1])
    assert set(stroke[place == 20 * 80 + 20].tolist()) == {2}
    assert set(stroke[place == 20 * 80 + 60].tolist()) == {1}
