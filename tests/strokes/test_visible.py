"""Strokes as the pixels in which they show: as the renderer paints them, and with what each is worth."""

from __future__ import annotations

import pytest
import torch

from gtool.strokes.brush import load_brush
from gtool.strokes.canvas import draw_on
from gtool.strokes.visible import find_visible, losses_without, render_visible
from tests.strokes.examples import colors, strokes

BRUSH = load_brush("flat", marks=4)
SIZE = (60, 80)
GROUND = torch.tensor([0.2, 0.5, 0.7])


def painted(geometry, tints, opacity=1.0):
    canvas = GROUND.expand(*SIZE, 3).contiguous()
    draw_on(canvas, geometry, tints, BRUSH, opacity)
    return canvas.permute(2, 0, 1)


@pytest.mark.parametrize("opacity", [1.0, 0.4])
def test_they_look_as_the_renderer_paints_them(opacity):
    geometry, tints = strokes(300, 80), colors(300)
    pixels = find_visible(BRUSH, geometry, SIZE, opacity)
    made = render_visible(pixels, BRUSH, geometry, tints, GROUND, opacity)
    far = (made - painted(geometry, tints, opacity)).abs()
    assert far.mean() < 0.004
    assert far.max() < 0.1


def test_what_lies_under_later_paint_is_left_out():
    geometry = strokes(300, 80)
    clear, covered = (len(find_visible(BRUSH, geometry, SIZE, opacity).place) for opacity in (0.0, 1.0))
    assert covered < 0.8 * clear


def test_they_still_do_after_a_small_move():
    geometry, tints = strokes(300, 80), colors(300)
    pixels = find_visible(BRUSH, geometry, SIZE, 1.0)
    moved = geometry + torch.tensor([0.7, -0.7, 0.5, -0.5, 0.004])
    made = render_visible(pixels, BRUSH, moved, tints, GROUND, 1.0)
    assert (made - painted(moved, tints)).abs().mean() < 0.01


def test_gradients_are_those_of_differences():
    geometry = torch.tensor([[40.0, 30.0, 20.0, 36.0, 0.3]])
    tints = torch.tensor([[0.9, 0.1, 0.1]])
    target = painted(geometry + torch.tensor([1.0, 0.5, -2.0, 3.0, 0.02]), tints)
    brush = load_brush("flat", marks=1)  # of several another turn may have another mark
    pixels = find_visible(brush, geometry, SIZE, 1.0)

    def loss(geometry):
        return (render_visible(pixels, brush, geometry, tints, GROUND, 1.0) - target).square().sum()

    moving = geometry.clone().requires_grad_()
    loss(moving).backward()
    # Bristles are finer than a step of the turn moves a corner: differences come near the gradient as steps shrink
    # (-397 at 0.005, -431 at 0.0002, gradient -446), until fp32 has no digits left.
    for number, step in enumerate((0.05, 0.05, 0.05, 0.05, 0.005)):
        change = torch.zeros(1, 5)
        change[0, number] = step
        wanted = (loss(geometry + change) - loss(geometry - change)) / (2 * step)
        assert float(moving.grad[0, number]) == pytest.approx(float(wanted), rel=0.15, abs=0.05)


def test_a_stroke_is_worth_what_the_painting_loses_without_it():
    geometry, tints = strokes(40, 80), colors(40)
    target = painted(geometry[::2], tints[::2]).flatten(1).T.contiguous()
    pixels = find_visible(BRUSH, geometry, SIZE, 0.0)  # all pixels: nothing is left out
    weight = torch.ones(SIZE[0] * SIZE[1])
    worth = losses_without(pixels, BRUSH, geometry, tints, GROUND, 1.0, target, weight)

    def error(keep):
        return (painted(geometry[keep], tints[keep]).flatten(1).T - target).abs().mean(1).sum()

    every = torch.ones(40, dtype=torch.bool)
    for number in range(0, 40, 7):
        without = every.clone()
        without[number] = False
        assert float(worth[number]) == pytest.approx(float(error(without) - error(every)), abs=0.6)
