"""A painting as a list of strokes, the list as pixels of any size, and what strokes cover and leave visible.

Axis letters: N strokes in the order they are painted, H W pixels, h w cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from gtool.strokes.brush import Brush
from gtool.strokes.renderer import composite, touch_in_layers

BAND_PIXELS = 16 * 2**20  # pixels held in float at a time
# Places of a mark that are sampled, across and along it; the ink of a brush ends at about 0.45.
SAMPLES = (-0.4, -0.2, 0.0, 0.2, 0.4)
LEAST_VISIBLE = 0.1  # share of a pixel's colour below which a stroke does not count as visible in it


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
    return torch.cat([shape_params[..., :4] * longer, shape_params[..., 4:]], dim=-1)


def draw_on(canvas: Tensor, geometry: Tensor, colors: Tensor, brush: Brush, opacity: float = 1.0) -> None:
    """Paint strokes (N, 5), in pixels, onto a canvas (H, W, 3) in [0, 1], in order and in place."""
    height, width, _ = canvas.shape
    flat = canvas.view(-1, 3)
    for layer, touched in touch_in_layers(brush, geometry, height, width):
        composite(flat, touched, colors[layer], opacity=opacity)


def uncovered(painting: Painting, height: int, width: int) -> float:
    """Return the share of pixels that less than half an opacity of paint covers."""
    canvas = painting.colors.new_zeros(height * width, 3)
    geometry = to_pixels(painting.shape_params, max(height, width))
    ones = torch.ones_like(painting.colors)
    for layer, touched in touch_in_layers(painting.brush, geometry, height, width):
        # Shade 1 everywhere: what is painted is the mask itself.
        composite(canvas, replace(touched, shaded=touched.mask), ones[layer])
    return float((canvas[..., 0] < 0.5).float().mean())


# Where strokes lie; their geometry is in pixels, as in `gtool.strokes.renderer`.


def cells_of(geometry: Tensor, height: int, width: int, cell: float) -> Tensor:
    """Return the cells of `cell` pixels that the boxes of N strokes (N, 5) meet: (height, width) bool."""
    left, top, right, bottom = _boxes(geometry, height, width, cell)
    steps = torch.zeros(height + 1, width + 1, device=geometry.device)
    one = torch.ones_like(geometry[:, 0])
    for row, column, sign in ((top, left, 1), (bottom, right, 1), (top, right, -1), (bottom, left, -1)):
        steps.index_put_((row, column), sign * one, accumulate=True)
    return steps.cumsum(0).cumsum(1)[:-1, :-1] > 0.5


def overlaps(geometry: Tensor, mask: Tensor, cell: float) -> Tensor:
    """Say which of N strokes (N, 5) have a box that meets a mask (h, w) of cells of `cell` pixels: (N,) bool."""
    height, width = mask.shape
    left, top, right, bottom = _boxes(geometry, height, width, cell)
    sums = torch.zeros(height + 1, width + 1, device=mask.device)
    sums[1:, 1:] = mask.float().cumsum(0).cumsum(1)
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside > 0.5


def _boxes(geometry: Tensor, height: int, width: int, cell: float) -> list[Tensor]:
    """Left, top, right and bottom cells, the latter two not inside: (N,) int64 each."""
    # Half a diagonal, and what filtering adds.
    reach = 0.505 * geometry[:, 2:4].norm(dim=-1, keepdim=True) + 2
    low, high = (geometry[:, :2] - reach) / cell, (geometry[:, :2] + reach) / cell
    ends = torch.tensor([width, height], device=geometry.device)
    low, high = low.floor().long().clamp(min=0), high.ceil().long().clamp(min=0)
    low, high = torch.minimum(low, ends), torch.minimum(high, ends)
    return [low[:, 0], low[:, 1], high[:, 0], high[:, 1]]


def sample_under(geometry: Tensor, image: Tensor) -> Tensor:
    """Sample an image (C, H, W), its edges repeated, in 25 places under the ink of N strokes (N, 5): (C, N, 25)."""
    _, height, width = image.shape
    sample = geometry.new_tensor(SAMPLES)
    u, v = (axis.reshape(1, -1) for axis in torch.meshgrid(sample, sample, indexing="ij"))  # (1, 25)
    x, y, across, along, theta = (part[:, None] for part in geometry.unbind(-1))
    cosine, sine = (torch.pi * theta).cos(), (torch.pi * theta).sin()
    column = (x + u * across * cosine - v * along * sine).floor().long().clamp(0, width - 1)  # (N, 25)
    row = (y + u * across * sine + v * along * cosine).floor().long().clamp(0, height - 1)
    place = (row * width + column).flatten()
    return image.flatten(1).index_select(1, place).view(len(image), *row.shape)


def visible_ink(
    brush: Brush, geometry: Tensor, opacity: float, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Find out how much of N strokes (N, 5), on a canvas of a height and width, later ones leave visible.

    Returns:
        share: (N,) of the ink of each, in [0, 1]; 0 where there is none.
        place: (P,) int64, pixels of the flat canvas,
        stroke: (P,) int64, the strokes that are visible in them.
    """
    height, width = size
    light = torch.ones(height * width, device=geometry.device)  # what passes through all strokes above
    seen, ink = torch.zeros(2, len(geometry), device=geometry.device)
    places, strokes = [torch.empty(0, dtype=torch.long, device=geometry.device)], [ink[:0].long()]
    downwards = geometry.flip(0)
    for layer, touched in touch_in_layers(brush, downwards, height, width):
        mask = touched.mask * opacity
        stroke = len(geometry) - 1 - layer[touched.stroke]
        weight = mask * light[touched.place]
        light[touched.place] -= weight
        seen.index_add_(0, stroke, weight)
        ink.index_add_(0, stroke, mask)
        clear = weight > LEAST_VISIBLE
        places.append(touched.place[clear])
        strokes.append(stroke[clear])
    return seen / ink.clamp(min=1e-6), torch.cat(places), torch.cat(strokes)
