"""What the run shell needs to know of a family of models.

A family is a subclass of `Trainer` in a module of its own (gan, tokenizer, prior, strokes); the table of models
(`gtool.models.registry`) names it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from gtool.config.schema import Recipe
from gtool.data.held_out import load_images, open_images
from gtool.data.loader import Batches
from gtool.data.pixel_cache import ImageArrays
from gtool.io.run_folder import RunFolder
from gtool.runtime.device import Compute


class Trainer(ABC):
    """A model in training: data, state, and what is shown of them."""

    ranked_by: ClassVar[str]  # the score that says which snapshot is best: the lower the better

    recipe: Recipe
    config: Any  # of the networks as they are trained: what the data decide is filled in, as in the recipe
    state: Any  # a `gtool.train.state.TrainingState`
    step: Callable[[Any], dict[str, Tensor]]  # one iteration: changes the state, returns statistics
    images: ImageArrays
    real_columns: int | None = None  # images per row of `real_images` and `preview`, where they are groups
    preview_columns: int | None = None

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
        """Find out, before any data is read, whether the recipe can be trained; RecipeError: it cannot."""

    @staticmethod
    @abstractmethod
    def step_flops(recipe: Recipe, forward: dict[str, float]) -> float:
        """Return the floating-point operations of training per image, from those of one forward of each network."""

    @staticmethod
    def blank_state(recipe: Recipe, config: Any, compute: Compute, images: Batches) -> Any:
        """Return the state at step 0 for blank images, made on the meta device; None: a step depends on values."""
        return None

    @abstractmethod
    def prepare(self, inputs: Any) -> None:
        """Read the data and make the state at step 0; `inputs` come from `open_inputs`."""

    def load_images(self, source: Any, resolution: int | None = None) -> ImageArrays:
        """Read the images of a source as squares."""
        return load_images(source, self.recipe, resolution or self.recipe.data.resolution, self.compute)

    def describe_data(self) -> str:
        """Return what has been read of the data set."""
        return f"{len(self.images):,} images at {self.recipe.data.resolution} px"

    @abstractmethod
    def real_images(self) -> np.ndarray:
        """Return images that the previews are compared with, uint8 (N, 3, R, R)."""

    @abstractmethod
    def preview(self) -> np.ndarray:
        """Return images that show the progress, uint8 (N, 3, R, R), always of the same subjects."""

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """Return scores by name."""
