"""What a stroke predictor learns from: patches painted with known strokes, and patches of half-painted pictures.

Strokes are drawn at random; pictures are dead leaves and built-in scenes, or cut out of a user's images. All random
numbers come from the generator that is passed.

Axis letters: N patches, G strokes a patch, P pixels of a patch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.config.schema import Recipe
from gtool.data.random_crops import random_crops, shrink
from gtool.data.synthetic.dead_leaves import draw_leaves
from gtool.data.synthetic.scenes import draw_scenes
from gtool.losses.strokes import mean_color, paint_in_turn, select_by_gain
from gtool.models.paint_transformer.config import PATCH
from gtool.models.paint_transformer.network import Proposals
from gtool.runtime.torch_random import make_generator
from gtool.strokes.brush import Brush
from gtool.strokes.renderer import render_on_patches

PICTURE = 128  # pixels a side of the pictures that crops come from
HELD_OUT = 64  # pictures that are scored
FEW = 16  # images of which none is spared for scoring
MAX_HIDDEN = 0.75  # share of an earlier stroke that a later one may not hide (released code)
Predict = Callable[[Tensor, Tensor], Proposals]


@dataclass(frozen=True)
class Pictures:
    """Pictures of a run, uint8 (N, 3, 128, 128) each."""

    training: Tensor
    held_out: Tensor  # whose crops are scored
    shown: Tensor  # that previews are painted after


def synthetic_pictures(recipe: Recipe) -> Pictures:
    """Draw all pictures of a run; only those learned from depend on its seed."""
    strokes = recipe.strokes
    return Pictures(
        training=draw_pictures(strokes.num_pictures, strokes.scenes_share, recipe.train.seed),
        held_out=draw_pictures(HELD_OUT, strokes.scenes_share, seed=10_007),
        shown=draw_pictures(recipe.sample.num, strokes.scenes_share, seed=10_009),
    )


def cut_pictures(images: Any, recipe: Recipe) -> Pictures:
    """Cut the pictures of a run out of a user's images, uint8 (N, 3, R, R).

    One image in eight is held out; where there are few, other squares of all of them are scored and shown.
    """
    random = make_generator(recipe.train.seed, "cuts")
    order = torch.randperm(len(images), generator=random)
    apart = min(HELD_OUT, len(images) // 8) if len(images) >= FEW else 0
    held_out, learned = (order[:apart], order[apart:]) if apart else (order[:HELD_OUT], order)
    training = random_crops(images, _in_turn(learned, recipe.strokes.num_pictures), PICTURE, random)
    shown = [shrink(torch.from_numpy(images[[number]]), PICTURE) for number in held_out[: recipe.sample.num]]
    return Pictures(
        training=training,
        held_out=random_crops(images, _in_turn(held_out, HELD_OUT), PICTURE, random),
        shown=torch.cat(shown),
    )


def _in_turn(numbers: Tensor, count: int) -> Tensor:
    """Repeat numbers until there are so many, equal ones together: (count,)."""
    return numbers.repeat(-(-count // len(numbers)))[:count].sort().values


def draw_pictures(count: int, scenes_share: float, seed: int) -> Tensor:
    """Draw the pictures of a run, uint8 (N, 3, 128, 128), a function of the seed alone."""
    num_scenes = round(count * scenes_share)
    leaves = draw_leaves(count - num_scenes, PICTURE, make_generator(seed, "leaves"))
    if not num_scenes:
        return leaves
    scenes = torch.from_numpy(np.asarray(draw_scenes(np.arange(num_scenes), PICTURE, seed).images))
    return torch.cat([leaves, scenes])


# Known strokes.


@dataclass(frozen=True)
class Known:
    """Patches of known strokes: target and canvas (N, 3, 32, 32), strokes (N, G, 5) and which are there (N, G)."""

    target: Tensor
    canvas: Tensor
    strokes: Tensor
    valid: Tensor


@torch.no_grad()
def known_strokes(
    brush: Brush, count: int, strokes: int, random: torch.Generator, device: torch.device
) -> Known:
    """Paint random strokes on backgrounds of random strokes twice as large (Paint Transformer, section 3.3)."""

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return (low + (high - low) * torch.rand(*shape, generator=random)).to(device)

    grounds = -(-count // 4)
    palette = uniform(count, 1, 3)
    # Neighbours in photographs differ little: colours scatter around one of the patch's own, by little or by much.
    scatter = uniform(count, 1, 1).square()
    colors = (palette + scatter * (uniform(count, strokes, 3) - palette)).clamp(0, 1)
    ground_colors = (
        palette[:grounds] + scatter[:grounds] * (uniform(grounds, strokes, 3) - palette[:grounds])
    ).clamp(0, 1)
    start = palette[:grounds, 0, :, None] * (uniform(grounds, 1, 1) < 0.75)
    under = _random_shapes(uniform, grounds, strokes)
    mask, shaded = render_on_patches(brush, under, 2 * PATCH)
    every = torch.ones(grounds, strokes, dtype=torch.bool, device=device)
    ground = paint_in_turn(mask, shaded, ground_colors, start.expand(-1, 3, mask.shape[-1]), every)[-1]
    canvas = quarters(ground.view(grounds, 3, 2 * PATCH, 2 * PATCH))[:count]
    shapes = _random_shapes(uniform, count, strokes)
    mask, shaded = render_on_patches(brush, shapes, PATCH)
    valid = _visible(mask)
    target = paint_in_turn(mask, shaded, colors, canvas.flatten(2), valid)[-1].view_as(canvas)
    return Known(target.clamp(0, 1), canvas.clamp(0, 1), shapes, valid)


def _random_shapes(uniform: Callable[..., Tensor], count: int, strokes: int) -> Tensor:
    centres = uniform(count, strokes, 2, low=0.0, high=1.0)
    sides = torch.exp(uniform(count, strokes, 2, low=-2.3, high=-0.2))  # 0.1 to 0.8, evenly in the logarithm
    return torch.cat([centres, sides, uniform(count, strokes, 1)], dim=-1)


def _visible(mask: Tensor) -> Tensor:
    """Keep strokes that hide less than MAX_HIDDEN of every earlier one that is kept: (N, G, P) -> (N, G) bool."""
    ink = (mask > 0.5).to(mask.dtype)
    area = ink.sum(-1)  # (N, G)
    hidden = ink @ ink.transpose(1, 2) / area.clamp(min=1)[:, None]  # [n, i, j]: share of j under i
    valid = area > 0
    for i in range(1, mask.shape[1]):
        hides = ((hidden[:, i, :i] >= MAX_HIDDEN) & valid[:, :i]).any(dim=1)
        valid[:, i] &= ~hides
    return valid


def quarters(images: Tensor) -> Tensor:
    """Cut (N, 3, 2S, 2S) into (4N, 3, S, S): the four quarters of the first image come first."""
    n, channels, height, width = images.shape
    cut = images.view(n, channels, 2, height // 2, 2, width // 2).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(4 * n, channels, height // 2, width // 2)


# Pictures, half painted.


def crops(pictures: Tensor, count: int, random: torch.Generator, device: torch.device) -> Tensor:
    """Cut (N, 3, 64, 64) in [0, 1] out of pictures, at random places, angles and scales of a pyramid."""
    uniform = torch.rand(count, 6, generator=random)
    source = pictures[torch.randint(len(pictures), (count,), generator=random)].to(device).float() / 255
    # Half a side in [-1, 1] coordinates: from one pixel a pixel to the whole picture.
    half = torch.exp(torch.log(torch.tensor(0.5)) * uniform[:, 0] * 1.3).clamp(max=1.0)
    angle = 2 * torch.pi * uniform[:, 1]
    turned = uniform[:, 5] < 0.7
    angle = torch.where(turned, angle, torch.zeros(()))
    half = torch.where(turned, half * 0.72, half)  # a turned square must fit
    c, s = half * angle.cos(), half * angle.sin()
    room = 1 - (c.abs() + s.abs())
    x, y = room * (2 * uniform[:, 2] - 1), room * (2 * uniform[:, 3] - 1)
    c = torch.where(uniform[:, 4] < 0.5, c, -c)  # mirrored
    matrix = torch.stack([c, -s, x, s * torch.where(uniform[:, 4] < 0.5, 1, -1), half * angle.cos(), y], 1)
    grid = F.affine_grid(
        matrix.view(count, 2, 3).to(device), [count, 3, 2 * PATCH, 2 * PATCH], align_corners=False
    )
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@torch.no_grad()
def half_painted(
    predict: Predict, brush: Brush, images: Tensor, strokes: int, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Turn crops (N, 3, 64, 64) into 5 N: each crop with an empty canvas, its quarters with its painting.

    Returns:
        targets and canvases, (5 N, 3, 32, 32) each.
    """
    n = len(images)
    parents = F.avg_pool2d(images, 2)
    mean = parents.mean(dim=(2, 3), keepdim=True).expand_as(parents)
    blurred = F.interpolate(F.avg_pool2d(parents, 8), size=PATCH, mode="bilinear", align_corners=False)
    draw = torch.rand(n, 1, 1, 1, generator=random).to(images.device)
    any_color = torch.rand(n, 3, 1, 1, generator=random).to(images.device).expand_as(parents)
    start = torch.where(draw < 0.45, mean, torch.where(draw < 0.85, blurred, any_color))
    shape_params, _ = predict(parents, start)
    small, _ = render_on_patches(brush, shape_params, PATCH)
    chosen, gain = select_by_gain(small, parents.flatten(2), start.flatten(2), strokes)
    picked = shape_params.gather(1, chosen[..., None].expand(-1, -1, 5))
    mask, shaded = render_on_patches(brush, picked, 2 * PATCH)
    canvas = F.interpolate(start, scale_factor=2, mode="bilinear", align_corners=False).flatten(2)
    colors = mean_color(mask, images.flatten(2))
    painted = paint_in_turn(mask, shaded, colors, canvas, gain > 0)[-1].view_as(images).clamp(0, 1)
    return torch.cat([parents, quarters(images)]), torch.cat([start, quarters(painted)])
