"""Fitting a palette, the tokenizer of image-GPT: one step of k-means over pixels, and no gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gtool import models
from gtool.data.transforms import to_pm1
from gtool.device import Compute, make_generator
from gtool.engines.adversarial_state import Batches
from gtool.recipe import Recipe

MOST_PIXELS = 2**22  # of the images that colours are taken from


@dataclass
class State:
    """The palette; it is its own average, and nothing optimizes it."""

    recipe: Recipe
    compute: Compute
    batches: Batches
    ema: Any
    nimg: int = 0
    steps: int = 0
    seconds: float = 0.0
    progress: float = 0.0
    numbers: dict[str, float] = field(default_factory=dict)  # none to remember
    optimizers: dict[str, tuple[nn.Module, Any]] = field(default_factory=dict)  # none

    @property
    def position(self) -> int:
        """Images drawn from the data so far."""
        return self.batches.position

    @position.setter
    def position(self, position: int) -> None:
        self.batches.position = position

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The palette by the name it is saved under."""
        return {"ema": self.ema}


def init_state(recipe: Recipe, config: Any, batches: Batches, compute: Compute) -> State:
    """Build an empty palette."""
    (palette,) = models.networks(recipe.model_name).build(config)
    return State(recipe, compute, batches, palette.to(compute.device).eval())


def step(state: State) -> dict[str, Tensor]:
    """Find the colours; the run is over after this."""
    train = state.recipe.train
    side = state.recipe.data.resolution
    images = state.batches.next(max(train.batch_size, MOST_PIXELS // side**2))
    random = make_generator(train.seed, "palette")
    error = state.ema.fit(to_pm1(images.to(state.compute.device)), random)
    state.nimg, state.steps = round(1000 * train.kimg), 1
    return {"palette_error": torch.tensor(error)}
