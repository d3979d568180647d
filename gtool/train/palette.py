"""Fitting a palette, the tokenizer of image-GPT: one step of k-means over pixels, and no gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gtool.config.recipe import Recipe
from gtool.models import registry
from gtool.nn.ranges import to_pm1
from gtool.runtime.device import Compute
from gtool.runtime.torch_random import make_generator
from gtool.train.gan_state import Batches
from gtool.train.resume import TrainingState

MOST_PIXELS = 2**22  # of the images that colours are taken from


@dataclass(kw_only=True)
class State(TrainingState):
    """The palette; it is its own average, and nothing optimizes it."""

    batches: Batches
    ema: Any

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The palette by the name it is saved under."""
        return {"ema": self.ema}

    @property
    def optimizers(self) -> dict[str, tuple[nn.Module, Any]]:
        """None."""
        return {}


def init_state(recipe: Recipe, config: Any, batches: Batches, compute: Compute) -> State:
    """Build an empty palette."""
    (palette,) = registry.networks(recipe.model_name).build(config)
    return State(recipe=recipe, compute=compute, batches=batches, ema=palette.to(compute.device).eval())


def step(state: State) -> dict[str, Tensor]:
    """Find the colours; the run is over after this."""
    train = state.recipe.train
    side = state.recipe.data.resolution
    images = state.batches.next(max(train.batch_size, MOST_PIXELS // side**2))
    random = make_generator(train.seed, "palette")
    error = state.ema.fit(to_pm1(images.to(state.compute.device)), random)
    state.nimg, state.steps = round(1000 * train.kimg), 1
    return {"palette_error": torch.tensor(error)}
