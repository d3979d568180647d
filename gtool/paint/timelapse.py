"""A timelapse of a painting: pictures from the bare ground to the last stroke."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from gtool.strokes.canvas import Painting, draw_on, to_pixels

# Strokes count by their area to this power. By area itself (1) the few broad strokes of the beginning would take
# most of the frames, by number (0) the many fine ones of the end; so, a frame changes between 2 and 25 % of the
# pixels of a painting of 2,765 strokes, and half of the frames show its first 160.
EVENNESS = 0.75


def timelapse(painting: Painting, height: int, width: int, frames: int) -> Iterator[Tensor]:
    """Yield the bare ground, the painting as it grows by about even amounts, and the finished painting.

    Every frame paints its new strokes over the one before. There are at most `frames`, fewer where there are not so
    many strokes; 1 is the finished painting alone.

    Yields:
        uint8 (height, width, 3) on the device of the strokes, each a tensor of its own.
    """
    if frames < 1:
        raise ValueError(f"a timelapse of {frames} frames")
    geometry = to_pixels(painting.shape_params, max(height, width))
    canvas = geometry.new_tensor(painting.ground).expand(height, width, 3).contiguous()
    for done, count in pairwise([0, *frame_counts(painting, frames)]):
        new = slice(done, count)
        draw_on(canvas, geometry[new], painting.colors[new], painting.brush, painting.opacity)
        yield canvas.mul(255).round_().to(torch.uint8)


def frame_counts(painting: Painting, frames: int) -> list[int]:
    """Return how many strokes each frame shows: from 0, or all if there is one frame, rising to all of them."""
    total = len(painting)
    frames = min(frames, total + 1)
    if frames == 1:
        return [total]
    # No more of a stroke is seen than fits into the picture.
    sides = painting.shape_params[:, 2:4].double().cpu().clamp(min=1e-3, max=1)
    done = (sides.prod(dim=1) ** EVENNESS).cumsum(0)
    shares = torch.linspace(0, 1, frames, dtype=torch.double)
    counts = torch.searchsorted(done, shares * done[-1])
    # At least one stroke more in every frame, and enough left for those to come.
    number = torch.arange(frames)
    counts = (counts - number).cummax(0).values + number
    counts = torch.minimum(counts, total - (frames - 1 - number))
    return [0, *counts[1:-1].tolist(), total]
