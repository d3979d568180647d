"""What the run shell needs to know of a family of models: its training state, and its trainer.

A family is a subclass of `Trainer` in a module of its own (gan, tokenizer, palette, prior, strokes); the table of
models (`gtool.models.registry`) names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gtool.config.schema import Recipe
from gtool.data.held_out import load_images, open_images
from gtool.data.pixel_cache import ImageArrays
from gtool.io.run_folder import RunFolder
from gtool.models import registry
from gtool.runtime.device import Compute
from gtool.runtime.torch_random import make_generator
from gtool.train.reports import save_grid


@dataclass(kw_only=True)
class TrainingState:
    """Everything that training changes: networks, their average, optimizers, counters, a place in the data.

    A network in training, `x`, is an attribute of a subclass, wrapped when there are several processes; its optimizer
    is `x_optimizer`, or `optimizer` where there is one network only.
    """

    in_training: ClassVar[tuple[str, ...]]  # the attributes that are networks in training

    recipe: Recipe
    compute: Compute
    ema: Any  # what is saved as weights
    batches: Any = None  # None for families whose batches are a function of the step
    nimg: int = 0  # images shown so far
    steps: int = 0
    seconds: float = 0.0  # spent training, over all sessions
    progress: float = 0.0  # share of the run that is done, 0 to 1: schedules read it

    def bare(self, name: str) -> Any:
        """Return a network in training without what wraps it."""
        return self.compute.accelerator.unwrap_model(getattr(self, name))

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All networks, not wrapped, by the names they are saved under."""
        return {name: self.bare(name) for name in self.in_training} | {"ema": self.ema}

    @property
    def optimizers(self) -> dict[str, tuple[nn.Module, Any]]:
        """The optimizers with their networks, by the names they are saved under."""
        is_only = len(self.in_training) == 1
        keys = {name: "optimizer" if is_only else f"{name}_optimizer" for name in self.in_training}
        return {key: (self.bare(name), getattr(self, key)) for name, key in keys.items()}

    @property
    def numbers(self) -> dict[str, float]:
        """What else is saved, the same in every process."""
        return {}

    @numbers.setter
    def numbers(self, numbers: dict[str, float]) -> None:
        pass

    @property
    def position(self) -> int:
        """Images drawn from the data so far, 0 for families without a place in the data."""
        return 0 if self.batches is None else int(self.batches.position)

    @position.setter
    def position(self, position: int) -> None:
        if self.batches is not None:
            self.batches.position = position


def build_networks(recipe: Recipe, config: Any) -> Any:
    """Build the networks of a recipe, a function of its seed alone; torch's global random numbers are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(make_generator(recipe.train.seed, "init").initial_seed())
        return registry.networks(recipe.model_name).build(config)


def wrap(recipe: Recipe, compute: Compute, **parts: Any) -> dict[str, Any]:
    """Compile networks where the recipe says so, and wrap networks and optimizers for several processes."""
    for part in parts.values():
        if recipe.train.compile and isinstance(part, nn.Module):
            part.compile()
    return {name: compute.accelerator.prepare(part) for name, part in parts.items()}


class Trainer(ABC):
    """A model in training: data, state, and what is shown of them."""

    ranked_by: ClassVar[str]  # the score that says which snapshot is best: the lower the better

    recipe: Recipe
    config: Any  # of the networks as they are trained: what the data decide is filled in, as in the recipe
    state: Any
    step: Callable[[Any], dict[str, Tensor]]  # one iteration: changes the state, returns statistics
    images: ImageArrays
    preview_columns: int | None = None  # images per row of a preview, where the recipe leaves it open

    def __init__(self, recipe: Recipe, config: Any, inputs: Any, compute: Compute) -> None:
        self.check(recipe, config, compute.world_size)
        self.recipe, self.config, self.compute = recipe, config, compute
        self.prepare(inputs)

    @staticmethod
    def open_inputs(recipe: Recipe, resumed: RunFolder | None) -> Any:
        """Find what is learned from, and download it, before any process is launched.

        Raises:
            DataError: no such data, or none that can be used.
            CheckpointError: trained weights that are needed are not there.
        """
        return open_images(recipe)

    @staticmethod
    @abstractmethod
    def check(recipe: Recipe, config: Any, processes: int) -> None:
        """Find out, before any data is read, whether the recipe can be trained.

        Raises:
            RecipeError: it cannot.
        """

    @staticmethod
    @abstractmethod
    def step_flops(recipe: Recipe, forward: dict[str, float]) -> float:
        """Return the floating-point operations of training per image, from those of one forward of each network."""

    @abstractmethod
    def prepare(self, inputs: Any) -> None:
        """Read the data and make the state at step 0; `inputs` come from `open_inputs`."""

    def load_images(self, source: Any, resolution: int | None = None) -> ImageArrays:
        """Read the images of a source as squares."""
        return load_images(source, self.recipe, resolution or self.recipe.data.resolution, self.compute)

    def describe_data(self) -> str:
        """Return the data set with its size."""
        data = self.recipe.data
        return f"{data.dataset}, {len(self.images):,} images at {data.resolution} px"

    def open_reports(self, run: RunFolder) -> None:
        """Save a grid of real images, and prepare what `measure` needs."""
        columns = self.recipe.sample.columns
        save_grid(run, "real", self.real_images(), columns, {"dataset": self.recipe.data.dataset})

    @abstractmethod
    def real_images(self) -> np.ndarray:
        """Return images that the previews are compared with, uint8 (N, 3, R, R)."""

    @abstractmethod
    def preview(self) -> np.ndarray:
        """Return images that show the progress, uint8 (N, 3, R, R), always of the same subjects."""

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """Return scores by name."""
