"""Encodings of the places of a square map, for attention: fixed waves, or learned numbers.

Generative Adversarial Transformers (Hudson, Zitnick 2021), section 3.1; compared with dorarad/gansformer,
pytorch_version/training/networks.py (get_positional_encoding).

Axis letters: S side of the map, L = S x S places in rows, p width of the encoding.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

GridKind = Literal["sinus", "fourier", "trainable2d"]
LONGEST = 10000.0  # sinus: the waves lengthen up to this factor, as released


class GridEncoding(nn.Module):
    """(L, p) for the places of a map whose coordinates run from -1 to 1.

    sinus: sin and cos at 1, ..., 1 / 10000 radians a unit, as released: little more than linear ramps. fourier: at
    pi / 2, pi, 2 pi ... radians a unit. trainable2d: a learned vector for each place.
    """

    waves: Tensor | None

    def __init__(self, kind: GridKind, side: int, dim: int) -> None:
        super().__init__()
        self.kind, self.side = kind, side
        waves = None
        if kind == "sinus":
            waves = _waves(side, LONGEST ** (-4 * torch.arange(dim // 4, device="cpu") / dim))
        elif kind == "fourier":
            # No faster than the map can show: a wave of two places.
            octaves = 2.0 ** torch.arange(dim // 4, device="cpu")
            waves = _waves(side, (math.pi / 2 * octaves).clamp(max=math.pi * side / 2))
        self.register_buffer("waves", waves, persistent=False)
        self.places = nn.Parameter(torch.rand(side * side, dim)) if kind == "trainable2d" else None

    def forward(self) -> Tensor:
        """Return (L, p)."""
        if self.waves is not None:
            return self.waves
        assert self.places is not None
        return self.places


def _waves(side: int, frequencies: Tensor) -> Tensor:
    phase = torch.linspace(-1, 1, side, device="cpu")[:, None] * frequencies  # (S, p / 4)
    axis = torch.cat([phase.sin(), phase.cos()], dim=1)
    # What columns say (S, p / 2) beside what rows say.
    return torch.cat([axis.expand(side, -1, -1), axis[:, None].expand(-1, side, -1)], dim=-1).flatten(0, 1)
