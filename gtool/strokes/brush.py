"""Brushes, drawn by code: a silhouette and the relief of its bristles, filtered for every size it is painted at.

A brush is drawn on the unit square that a stroke's width (u) and height (v) span, bristles along v. Two numbers a
place: how much paint covers it (mask) and how much lighter or darker than the stroke's colour it is (shade, of
mean 1 over the paint, so that a stroke has on average the colour it was given: the pictures of the reference
darken it by 9 %).

Strokes are squeezed by different amounts along u and v, so the picture is kept in every pair of power-of-two
widths and heights (a ripmap): a stroke is sampled from the one nearest to its own pixels, neither aliased nor
blurred. All of them lie in one atlas, and a painting needs one `grid_sample`, whatever sizes its strokes have.

No two touches of a real brush leave the same mark, and equal ones beside each other look like corduroy: a built-in
brush paints with MARKS of them, one below the other in the atlas; the turn of a stroke says which is its own.

Axis letters: M side of the largest picture, T texels of the atlas a side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gtool.errors import DataError, did_you_mean
from gtool.strokes.settings import BRUSHES

MASTER = 256  # texels a side of the largest picture of the atlas
FINEST = 512  # and of the drawing that it is filtered from
SMALLEST = 2
# Half axes of the silhouette in widths and heights of the stroke, as those of the reference's ink.
HALF_WIDTH, HALF_HEIGHT = 0.40, 0.46
CHANNELS = 2  # mask and mask * shade
MARKS = 4  # of a built-in brush
# Of the marks of a brush: contrast of the bristles, how much the far end narrows, how much paint is missing.
VARIETY = {
    "flat": (0.6, 0.3, 0.0),
    "round": (0.35, 0.75, 0.0),
    "dry": (1.1, 0.2, 1.0),
    "marker": (0.25, 0.0, 0.0),
    "wash": (0.5, 0.35, 0.0),
    "chalk": (0.5, 0.2, 0.7),
}

Picture = np.ndarray  # (2, M, M) float32: mask, shade


@dataclass(frozen=True)
class Brush:
    """A brush ready to paint.

    atlas: (1, 2, marks T, T) mask and mask * shade; a border of zeros around every picture.
    corners: (levels,) first texel of the pictures of a level, x by the width's, y by the height's, in the first mark.
    sizes: (levels,) texels a side.
    """

    name: str
    atlas: Tensor
    corners: Tensor
    sizes: Tensor

    def to(self, device: torch.device | str) -> Brush:
        """Return the brush on a device."""
        return Brush(self.name, self.atlas.to(device), self.corners.to(device), self.sizes.to(device))

    @property
    def marks(self) -> int:
        """How many marks there are."""
        return self.atlas.shape[-2] // self.atlas.shape[-1]

    @property
    def coverage(self) -> float:
        """Share of a stroke's width times height that is paint, in the last mark."""
        return float(self.atlas[0, 0, -MASTER - 1 : -1, -MASTER - 1 : -1].mean())

    def picture(self, height: int, width: int, mark: int = 0) -> np.ndarray:
        """Return mask and mask * shade, float64 (2, height, width), bristles along the height; powers of two."""
        column, row = ((side // SMALLEST).bit_length() - 1 for side in (width, height))
        left, top = int(self.corners[column]), int(self.corners[row]) + mark * self.atlas.shape[-1]
        return self.atlas[0, :, top : top + height, left : left + width].cpu().numpy().astype(np.float64)


@lru_cache(maxsize=8)
def load_brush(name: str, seed: int = 0, marks: int = 1) -> Brush:
    """Return a built-in brush with one plain mark, which predictors learn with, or with several that vary.

    Raises:
        DataError: no such brush.
    """
    if name not in BRUSHES:
        raise DataError(f"brush `{name}` does not exist{did_you_mean(name, BRUSHES)}")
    if marks == 1:
        return make_brush(name, draw(name, seed))
    made = [make_brush(name, vary(draw(name, seed + mark), name, mark)) for mark in range(marks)]
    return replace(made[0], atlas=torch.cat([brush.atlas for brush in made], dim=2))


def draw(kind: str, seed: int = 0) -> Picture:
    """Draw a built-in brush (2, FINEST, FINEST): mask and shade."""
    random = np.random.default_rng([seed, BRUSHES.index(kind)])
    places = (np.arange(FINEST) + 0.5) / FINEST - 0.5
    x, y = places[None, :], places[:, None]
    bristles = _noise(random, 90) + 0.6 * _noise(random, 28)  # (FINEST,) across the stroke
    along = _smooth_field(random, across=48, along=5)  # how each bristle changes on its way
    shade = 1 + 0.085 * bristles[None, :] + 0.075 * along
    if kind in ("round", "wash"):
        inside = 1 - (np.abs(x / HALF_WIDTH) ** 2.4 + np.abs(y / HALF_HEIGHT) ** 2.4)
        inside = inside + (0.05 if kind == "round" else 0.25) * _smooth_field(random, across=9, along=9)
    elif kind == "marker":
        inside = 1 - (np.abs(x / HALF_WIDTH) ** 6 + np.abs(y / HALF_HEIGHT) ** 6)
    else:
        reach = HALF_HEIGHT - 0.035 * (1 + _noise(random, 40))[None, :] - 0.04 * (x / HALF_WIDTH) ** 2
        side = HALF_WIDTH - 0.012 * (1 + _noise(random, 12))[:, None]
        # The far end is ragged, the near end round: a loaded brush set down and lifted.
        far = reach - 0.03 * (1 + _noise(random, 70))[None, :]
        ends = np.where(y < 0, -y / reach, y / far)
        inside = 1 - np.maximum(np.abs(x) / side, ends)
    mask = np.clip(0.5 + inside * FINEST * HALF_WIDTH / 8, 0, 1)
    if kind == "dry":
        load = bristles[None, :] + 0.9 * along + 1.5 - 2.6 * (y + 0.5)
        mask = mask * np.clip(0.5 + 2.5 * load + 1.6, 0, 1)
    # Paint is pushed to the rim and stands there; water leaves its pigment all around.
    rim = np.exp(-np.clip(inside, 0, None) / 0.06)
    lit = -0.10 * (x < 0) + 0.06 * (x >= 0) if kind in ("flat", "round", "dry") else -0.12 * (kind == "wash")
    shade = shade + lit * rim
    return np.stack([mask, shade * np.ones_like(mask)]).astype(np.float32)


def vary(picture: Picture, kind: str, number: int) -> Picture:
    """Return another mark of a brush: bent, narrower at its far end, pressed on more or less, its bristles uneven."""
    contrast, taper, gaps = VARIETY[kind]
    random = np.random.default_rng([number, BRUSHES.index(kind), 1])
    bend, narrowing, pressure = random.uniform(-1, 1), taper * random.uniform(0, 1), random.uniform(0.4, 1)
    places = (np.arange(FINEST) + 0.5) / FINEST - 0.5
    x, y = places[None, :], places[:, None]
    source = (x - 0.07 * bend * (1 - 8 * y**2)) / (1 - narrowing * (y + 0.5) ** 2)
    columns = np.clip((source + 0.5) * FINEST, 0, FINEST - 1).astype(int)
    mask, shade = (np.take_along_axis(channel, columns, axis=1) for channel in picture)
    uneven = np.clip(0.5 + _smooth_field(random, across=7, along=3), 0, 1.2)  # where bristles are seen
    broad = 0.05 * contrast * _smooth_field(random, across=5, along=2)
    shade = 1 + contrast * pressure * uneven * (shade - 1) + broad
    streaks = _smooth_field(random, across=80, along=4) + 0.9 * _smooth_field(random, across=14, along=5)
    if kind == "chalk":
        mask = mask * np.clip(
            0.9 + 1.4 * _smooth_field(random, across=64, along=110), 0, 1
        )  # grain of the paper
    mask = mask * np.clip(1.6 + 3 * gaps * (streaks - 0.6 * (y + 0.5)), 1 - gaps, 1)
    return np.stack([mask, shade]).astype(np.float32)


def from_ink(ink: np.ndarray) -> Picture:
    """Turn how much ink a scanned brush mark has, (H, W) in [0, 1], into a picture: mask and shade.

    The mark is stretched over the whole square, its bristles along the height; shade comes from the amount of ink.
    """
    image = Image.fromarray((ink * 255).astype(np.uint8)).resize((FINEST, FINEST), Image.Resampling.BOX)
    amount = np.asarray(image, np.float32) / 255
    mask = np.clip(amount * 4, 0, 1)
    return np.stack([mask, 1.15 - 0.3 * amount])


def make_brush(name: str, picture: Picture) -> Brush:
    """Filter a picture for every size and lay the results out in an atlas."""
    mask, shade = picture[0].astype(np.float64), picture[1].astype(np.float64)
    weight = mask.sum()
    if not weight > 0:
        raise DataError(f"brush {name}: there is no ink in the picture")
    shaded = mask * shade * (weight / (mask * shade).sum())
    channels = np.stack([mask, shaded])
    sizes = [SMALLEST << level for level in range((MASTER // SMALLEST).bit_length())]
    starts = np.cumsum([1, *(size + 2 for size in sizes)])
    atlas = np.zeros((CHANNELS, starts[-1] - 1, starts[-1] - 1), np.float32)
    rows = channels.astype(np.float32).reshape(CHANNELS, MASTER, -1, channels.shape[-1]).mean(2)
    for height, y in reversed(list(zip(sizes, starts, strict=False))):
        cells = rows.reshape(CHANNELS, height, MASTER, -1).mean(3)
        for width, x in reversed(list(zip(sizes, starts, strict=False))):
            atlas[:, y : y + height, x : x + width] = cells
            cells = cells.reshape(CHANNELS, height, -1, 2).mean(3)
        rows = rows.reshape(CHANNELS, -1, 2, rows.shape[-1]).mean(2)
    corners = torch.from_numpy(starts[:-1].astype(np.float32))
    return Brush(name, torch.from_numpy(atlas)[None], corners, torch.tensor([float(size) for size in sizes]))


def _noise(random: np.random.Generator, waves: int) -> np.ndarray:
    """Smooth 1-D noise (FINEST,) in about [-1, 1] with so many independent values along it."""
    return _interpolate(random.uniform(-1, 1, (waves + 3, 1)), waves)[:, 0]


def _smooth_field(random: np.random.Generator, across: int, along: int) -> np.ndarray:
    """Smooth 2-D noise (FINEST, FINEST) in about [-1, 1]; across counts values along u, along those along v."""
    rows = _interpolate(random.uniform(-1, 1, (along + 3, across + 3)), along)
    return _interpolate(rows.T, across).T


def _interpolate(knots: np.ndarray, waves: int) -> np.ndarray:
    """Values (waves + 3, n) at even places -> (FINEST, n), smoothly between them."""
    places = np.linspace(1, waves + 1, FINEST)
    left = places.astype(int)
    share = (places - left)[:, None]
    share = share * share * (3 - 2 * share)
    return knots[left] * (1 - share) + knots[left + 1] * share
