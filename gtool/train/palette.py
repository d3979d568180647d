"""Fitting a palette, the tokenizer of image-GPT: one step of k-means over pixels, and no gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gtool.config.schema import Recipe
from gtool.nn.ranges import to_pm1
from gtool.runtime.device import Compute
from gtool.runtime.torch_random import make_generator
from gtool.train.trainer import TrainingState, build_networks

MAX_PIXELS = 2**22  # of the images that colours are taken from


@dataclass(kw_only=True)
class PaletteState(TrainingState):
    """The palette is its own average, and nothing optimizes it."""

    in_training = ()


def init_state(recipe: Recipe, config: Any, batches: Any, compute: Compute) -> PaletteState:
    """Build an empty palette."""
    (palette,) = build_networks(recipe, config)
    return PaletteState(
        recipe=recipe, compute=compute, batches=batches, ema=palette.to(compute.device).eval()
    )


def step(state: PaletteState) -> dict[str, Tensor]:
    """Find the colours; the run is over after this."""
    train = state.recipe.train
    side = state.recipe.data.resolution
    images = state.batches.next(max(train.batch_size, MAX_PIXELS // side**2))
    random = make_generator(train.seed, "palette")
    error = state.ema.fit(to_pm1(images.to(state.compute.device)), random)
    state.nimg, state.steps = round(1000 * train.kimg), 1
    return {"palette_error": torch.tensor(error)}
