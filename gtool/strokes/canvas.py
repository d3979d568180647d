"""A painting as a list of strokes, and the list as pixels of any size.

Axis letters: N strokes in the order they are painted, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from gtool.strokes.brush import Brush
from gtool.strokes.renderer import composite, layers, touch

BAND_PIXELS = 16 * 2**20  # pixels held in float at a time


@dataclass(frozen=True)
class Painting:
    """Strokes on a ground, without a size: lengths are shares of the picture's longer side."""

    aspect: float  # width over height
    shape_params: (
        Tensor  # (N, 5) x, y, width, height, theta in units of pi; y runs down, from the upper left corner
    )
    colors: Tensor  # (N, 3) in [0, 1]
    levels: Tensor  # (N,) int64, the pass that each comes from, 0 the coarsest; rendering does not use it
    ground: tuple[float, float, float]  # colour of the canvas, RGB in [0, 1]
    brush: Brush  # on the device of the strokes
    opacity: float = 1.0  # of every stroke, in [0, 1]

    def __len__(self) -> int:
        return len(self.shape_params)

    def __getitem__(self, strokes: slice | Tensor) -> Painting:
        """Return the painting of some of its strokes: `painting[:100]` is as it was after the first hundred."""
        return replace(
            self,
            shape_params=self.shape_params[strokes],
            colors=self.colors[strokes],
            levels=self.levels[strokes],
        )

    def to(self, device: torch.device | str) -> Painting:
        """Return the painting on a device."""
        return replace(
            self,
            shape_params=self.shape_params.to(device),
            colors=self.colors.to(device),
            levels=self.levels.to(device),
            brush=self.brush.to(device),
        )

    def size(self, longer: int) -> tuple[int, int]:
        """Return height and width in pixels for a longer side."""
        if self.aspect >= 1:
            return max(1, round(longer / self.aspect)), longer
        return longer, max(1, round(longer * self.aspect))

    def render(self, height: int, width: int) -> Tensor:
        """Paint all strokes: uint8 (H, W, 3) on the device of the strokes; memory is bounded by bands of rows."""
        geometry = to_pixels(self.shape_params, max(height, width))
        reach = geometry[:, 2:4].norm(dim=-1) * 0.505 + 2  # half a diagonal, and what filtering adds
        rows = max(1, BAND_PIXELS // width)
        out = torch.empty(height, width, 3, dtype=torch.uint8, device=self.colors.device)
        for top in range(0, height, rows):
            bottom = min(height, top + rows)
            near = (geometry[:, 1] + reach > top) & (geometry[:, 1] - reach < bottom)
            shifted = geometry[near] - geometry.new_tensor([0.0, top, 0.0, 0.0, 0.0])
            canvas = geometry.new_tensor(self.ground).expand(bottom - top, width, 3).contiguous()
            draw_on(canvas, shifted, self.colors[near], self.brush, self.opacity)
            out[top:bottom] = canvas.mul_(255).round_().to(torch.uint8)
        return out

    def to_image(self, longer: int) -> Image.Image:
        """Render the painting with so many pixels of the longer side."""
        return Image.fromarray(self.render(*self.size(longer)).cpu().numpy())


def to_pixels(shape_params: Tensor, longer: float) -> Tensor:
    """Strokes (..., 5) in shares of the longer side -> pixels."""
    return shape_params * shape_params.new_tensor([longer, longer, longer, longer, 1.0])


def draw_on(canvas: Tensor, geometry: Tensor, colors: Tensor, brush: Brush, opacity: float = 1.0) -> None:
    """Paint strokes (N, 5), in pixels, onto a canvas (H, W, 3) in [0, 1], in order and in place."""
    height, width, _ = canvas.shape
    flat = canvas.view(-1, 3)
    for layer in layers(geometry, height, width):
        composite(flat, touch(brush, geometry[layer], height, width), colors[layer], opacity=opacity)


def uncovered(painting: Painting, height: int, width: int) -> float:
    """Return the share of pixels that less than half an opacity of paint covers."""
    canvas = painting.colors.new_zeros(height * width, 3)
    geometry = to_pixels(painting.shape_params, max(height, width))
    ones = torch.ones_like(painting.colors)
    for layer in layers(geometry, height, width):
        touched = touch(painting.brush, geometry[layer], height, width)
        # Shade 1 everywhere: what is painted is the mask itself.
        composite(canvas, replace(touched, shaded=touched.mask), ones[layer])
    return float((canvas[..., 0] < 0.5).float().mean())
