"""Strokes, paintings and brushes to try things on."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from gtool.strokes import settings
from gtool.strokes.brush import from_ink, load_brush, make_brush
from gtool.strokes.canvas import Painting

BRUSHES = (*settings.BRUSHES, "ink")


@cache
def brush_named(name):
    """Return a built-in brush, or `ink`: a scan that is inked up to its edges."""
    if name != "ink":
        return load_brush(name)
    return make_brush("ink", from_ink(np.random.default_rng(0).uniform(0.5, 1, (90, 40))))


def strokes(count, longer, seed=0):
    """Random strokes in pixels, some across the border and beyond it, sides from less than a pixel to half of it."""
    random = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, 5, generator=random)
    places = (1.3 * uniform[:, :2] - 0.15) * longer
    return torch.cat([places, longer * 0.5 * torch.exp(-4 * uniform[:, 2:4]), 2 * uniform[:, 4:]], dim=1)


def colors(count, seed=1):
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))


def a_painting(count=200, seed=0, brush="flat", **changes):
    brush = brush_named(brush) if isinstance(brush, str) else brush
    params = strokes(count, 1.0, seed)
    made = Painting(1.5, params, colors(count), torch.zeros(count, dtype=torch.long), (0.2, 0.5, 0.7), brush)
    return replace(made, **changes)
