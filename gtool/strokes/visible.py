"""Strokes as the pixels in which they show, in painting order: pixels with gradients, fast enough to try them often.

Of all pixels under the strokes of a painting some two thirds lie under later paint. They have no say in how it looks,
and no gradient: they are found once and left out while strokes move a little.

Axis letters: N strokes, P pixels under strokes in a list, D strokes above each other at most, H W pixels, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gtool.strokes.brush import Brush
from gtool.strokes.renderer import sample_marks, touch

ROOM = 3.0  # pixels that are added to the sides of strokes, and taken from those above, before pixels are left out
LEAST_LIGHT = 0.03  # that reaches a pixel through the paint above, below which it is left out
SMALLEST = 0.2  # pixels that a side of a stroke has at least


@dataclass(frozen=True)
class VisiblePixels:
    """Pixels of strokes, sorted by their place on the canvas, those of one place in painting order."""

    place: Tensor  # (P,) int64, in the flat canvas
    stroke: Tensor  # (P,) int64, whose it is
    slot: Tensor  # (P,) int64, in flat layers (D, H W)
    depth: int  # D
    size: tuple[int, int]

    def sample(self, brush: Brush, geometry: Tensor, opacity: float) -> tuple[Tensor, Tensor]:
        """Return what each pixel covers, and that times its shade, of strokes (N, 5) in pixels: (P,) each."""
        width = self.size[1]
        x, y = self.place % width + 0.5, self.place // width + 0.5
        mask, shaded = sample_marks(brush, geometry, self.stroke, x, y)
        return mask * opacity, shaded * opacity

    def layers(self, values: Tensor) -> Tensor:
        """Values (P, C) -> (D, H W, C), the pixels of one place below each other; 0 where there are none."""
        height, width = self.size
        empty = values.new_zeros(self.depth * height * width, values.shape[1])
        return empty.index_copy(0, self.slot, values).view(self.depth, height * width, -1)

    def of_layers(self, layers: Tensor) -> Tensor:
        """(D, H W, C) -> the values of the pixels (P, C)."""
        return layers.flatten(0, 1).index_select(0, self.slot)

    def light(self, cover: Tensor) -> Tensor:
        """Say how much light reaches each pixel through those above, which cover (P,) of it: (P, 1)."""
        layers = 1 - self.layers(cover[:, None])
        through = torch.ones_like(layers)
        for number in range(self.depth - 1, 0, -1):
            through[number - 1] = through[number] * layers[number]
        return self.of_layers(through)

    def paints(self, brush: Brush, geometry: Tensor, colors: Tensor, opacity: float) -> tuple[Tensor, Tensor]:
        """Return what the pixels of strokes of colours (N, C) cover, (P,), and the paint they add, (P, C)."""
        cover, shaded = self.sample(brush, geometry, opacity)
        paint = shaded[:, None] * colors.index_select(0, self.stroke)
        return cover, torch.minimum(paint, cover[:, None])  # nothing is lighter than white


def find_visible(brush: Brush, geometry: Tensor, size: tuple[int, int], opacity: float) -> VisiblePixels:
    """List the pixels of N strokes (N, 5) on a canvas of a height and width that show, now or after small moves."""
    touched = touch(brush, _resized(geometry, ROOM), *size)
    place, order = touched.place.sort(stable=True)
    found = _stacked(place, touched.stroke.index_select(0, order), size)
    cover, _ = found.sample(brush, _resized(geometry, -ROOM), opacity)
    seen = found.light(cover)[:, 0] > LEAST_LIGHT
    seen &= touched.mask.index_select(0, order) > 0
    return _stacked(found.place[seen], found.stroke[seen], size)


def render_visible(
    pixels: VisiblePixels, brush: Brush, geometry: Tensor, colors: Tensor, ground: Tensor, opacity: float
) -> Tensor:
    """Paint strokes (N, 5), in pixels, of colours (N, C) onto a ground (C,): (C, H, W); differentiable."""
    return _stages(pixels, brush, geometry, colors, ground, opacity)[-1].T.view(-1, *pixels.size)


def losses_without(
    pixels: VisiblePixels,
    brush: Brush,
    geometry: Tensor,
    colors: Tensor,
    ground: Tensor,
    opacity: float,
    target: Tensor,
    weight: Tensor,
) -> Tensor:
    """Say by how much |canvas - target| would grow without each of N strokes: (N,), summed over pixels.

    target: (H W, 3), of the first channels; weight: (H W,), how much pixels count.
    """
    stages = _stages(pixels, brush, geometry, colors, ground, opacity)
    under = pixels.of_layers(torch.stack(stages[:-1]))
    cover, paint = pixels.paints(brush, geometry, colors, opacity)
    changes = pixels.light(cover) * (cover[:, None] * under - paint)
    final, wanted = (x.index_select(0, pixels.place) for x in (stages[-1][:, :3], target))
    without = final + changes[:, :3]
    loss = ((without - wanted).abs() - (final - wanted).abs()).mean(1) * weight.index_select(0, pixels.place)
    return torch.zeros_like(geometry[:, 0]).index_add_(0, pixels.stroke, loss)


def _stages(
    pixels: VisiblePixels, brush: Brush, geometry: Tensor, colors: Tensor, ground: Tensor, opacity: float
) -> list[Tensor]:
    """Return the canvas before every layer and after the last one: (H W, C) each."""
    cover, paint = pixels.paints(brush, geometry, colors, opacity)
    clear = 1 - pixels.layers(cover[:, None])
    canvases = [ground.expand(clear.shape[1], -1)]
    for left, added in zip(clear, pixels.layers(paint), strict=True):
        canvases.append(torch.addcmul(added, left, canvases[-1]))
    return canvases


def _stacked(place: Tensor, stroke: Tensor, size: tuple[int, int]) -> VisiblePixels:
    """Give sorted pixels their layers."""
    area = size[0] * size[1]
    count = torch.bincount(place, minlength=area)
    rank = torch.arange(len(place), device=place.device) - (count.cumsum(0) - count).index_select(0, place)
    return VisiblePixels(place, stroke, rank * area + place, int(count.max()), size)


def _resized(geometry: Tensor, by: float) -> Tensor:
    sides = (geometry[:, 2:4] + by).clamp(min=SMALLEST)
    return torch.cat([geometry[:, :2], sides, geometry[:, 4:]], dim=1)
