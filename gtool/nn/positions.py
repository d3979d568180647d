"""Positions of tokens on a square map: learned tables, relative tables, and the order of tokens in tiles.

Axis letters: N batch, L tokens of a map of side S (L = S x S), w side of a tile, T = w x w tokens of it,
C channels, K heads.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

INIT_STD = 0.02  # of position and relative tables (released code)


def to_tiles(x: Tensor, window: int) -> Tensor:
    """Order the tokens of a map by its w x w tiles: (N, L, C) -> (N, L, C), a tile's T tokens in a row."""
    n, tokens, channels = x.shape
    side = round(tokens**0.5)
    if window == side:
        return x
    tiles = side // window
    x = x.view(n, tiles, window, tiles, window, channels).transpose(2, 3)
    return x.reshape(n, tokens, channels)


def from_tiles(x: Tensor, window: int) -> Tensor:
    """Undo `to_tiles`."""
    n, tokens, channels = x.shape
    side = round(tokens**0.5)
    if window == side:
        return x
    tiles = side // window
    x = x.view(n, tiles, tiles, window, window, channels).transpose(2, 3)
    return x.reshape(n, tokens, channels)


class RelativePositionBias(nn.Module):
    """A table of one number per 2-D offset and head, added to the logits of attention inside a tile.

    kind "learned" starts as noise of 0.02 (released code). kind "local" starts as -d^2 / (2 s^2) with d the
    distance in tokens and s = 0.8 x 2^head, from the fourth head on as zero: heads that begin as
    neighbourhoods of growing size.
    """

    def __init__(self, window: int, heads: int, kind: str) -> None:
        super().__init__()
        self.window = window
        self.table = nn.Parameter(torch.empty(heads, (2 * window - 1) ** 2))
        with torch.no_grad():
            if kind == "local":
                self.table.copy_(local_table(window, heads))
            else:
                nn.init.trunc_normal_(self.table, std=INIT_STD)

    def forward(self) -> Tensor:
        """Return the bias (K, T, T) of every query and key."""
        width, tokens = 2 * self.window - 1, self.window**2
        # Every query sees a w x w window of the table turned by half a turn: views and one copy, no index.
        turned = self.table.view(-1, width, width).flip(1, 2)
        windows = turned.unfold(1, self.window, 1).unfold(2, self.window, 1)  # (K, w, w, w, w)
        return windows.flip(1, 2).reshape(-1, tokens, tokens)


def local_table(window: int, heads: int) -> Tensor:
    """Return (K, (2w-1)^2): Gaussian neighbourhoods of 0.8, 1.6, 3.2 tokens for three heads, then zeros.

    Logarithms stop at -20: further down, softmax computes with denormal numbers, which takes ten times as
    long.
    """
    offset = torch.arange(1 - window, window, dtype=torch.float32, device="cpu")
    squared = (offset[:, None] ** 2 + offset[None, :] ** 2).flatten()  # ((2w-1)^2,)
    scales = [1 / (2 * (0.8 * 2**head) ** 2) if head < 3 else 0.0 for head in range(heads)]
    return (-torch.tensor(scales, device="cpu")[:, None] * squared).clamp(min=-20.0)


def neighbourhood_mask(side: int, width: int, kind: str) -> Tensor:
    """Return bool (L, L), True where a query may look: `width` tokens away at most.

    kind "neighbourhood" counts along both axes, as the paper's version 1 describes; "band" along the
    flattened tokens, as its code does.
    """
    place = torch.arange(side**2)
    if kind == "band":
        return (place[:, None] - place[None, :]).abs() <= width
    rows, columns = place // side, place % side
    near_rows = (rows[:, None] - rows[None, :]).abs() <= width
    return near_rows & ((columns[:, None] - columns[None, :]).abs() <= width)


# Encodings of the places of a map, of width p: Generative Adversarial Transformers (Hudson, Zitnick 2021), section 3.1;
# compared with dorarad/gansformer, pytorch_version/training/networks.py (get_positional_encoding).

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
