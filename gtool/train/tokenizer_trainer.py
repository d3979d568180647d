"""What tokenizers add to `gtool train`: images, their reconstructions, how near these are, and which codes are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gtool.data.held_out import hold_out, load_images, open_images
from gtool.errors import RecipeError

if TYPE_CHECKING:
    import numpy as np

    from gtool.config.recipe import Recipe
    from gtool.io.run_folder import RunFolder
    from gtool.runtime.device import Compute


def open_inputs(recipe: Recipe) -> Any:
    """Find the images, without torch.

    Raises:
        DataError: no such data, or none that can be used.
    """
    return open_images(recipe)


def check(recipe: Recipe, config: Any, processes: int) -> None:
    """Find out, before any data is read, whether the recipe can be trained.

    Raises:
        RecipeError: it cannot.
    """
    if config.kind == "palette":
        if processes > 1:
            raise RecipeError("model.kind = 'palette': its colours are found in one process, within seconds")
        return
    if config.quantizer.kind == "gumbel":
        raise RecipeError(
            "model.quantizer.kind = 'gumbel' is for released weights and cannot be trained; set 'cosine', "
            "'codebook' or 'fsq'"
        )
    if config.image_channels != 3:
        raise RecipeError(
            f"model.image_channels = {config.image_channels}: photographs have 3; conditions need no tokenizer of "
            "their own, they are read as labels of cells"
        )
    if recipe.train.micro_batch is not None:
        raise RecipeError("train.micro_batch: a tokenizer weighs its losses over a whole batch; leave it out")
    if config.discriminator.norm == "batch" and processes > 1:
        raise RecipeError(
            "model.discriminator.norm = 'batch' judges an image by those beside it, so that the result would depend "
            "on the number of processes; set 'group' or 'none', or train in one process"
        )


def step_flops(recipe: Recipe, forward: dict[str, float]) -> float:
    """Return the floating-point operations of training for each image: a forward and a backward of each network.

    The discriminator counts for the share of the run in which it is there: for its own update twice, images and
    reconstructions, and once for the tokenizer's.
    """
    if "discriminator" not in forward:
        return forward["tokenizer"]
    loss = recipe.reconstruction
    judged = 1 - loss.discriminator_start if loss.adversarial else 0.0
    heard = 1 - loss.adversarial_start if loss.adversarial else 0.0
    return 3.0 * forward["tokenizer"] + (6.0 * judged + 3.0 * heard) * forward["discriminator"]


class Trainer:
    """A tokenizer and the discriminator of its reconstructions in training; or a palette, which is fitted at once."""

    preview_columns = None
    ranked_by = "mse"

    def __init__(self, recipe: Recipe, config: Any, inputs: Any, compute: Compute) -> None:
        from gtool.train import palette, tokenizer

        engine: Any = palette if config.kind == "palette" else tokenizer
        check(recipe, config, compute.world_size)
        self.recipe, self.config, self.compute = recipe, config, compute
        self.images = load_images(inputs, recipe, recipe.data.resolution, compute)
        batches, self.held_out = hold_out(self.images, recipe, compute, flip=recipe.data.flip)
        self.state = engine.init_state(recipe, config, batches, compute)
        self.step = engine.step

    def describe_data(self) -> str:
        """Return the data set with its size."""
        data = self.recipe.data
        kept = f", {len(self.held_out):,} of them kept aside to measure on"
        return f"{data.dataset}, {len(self.images):,} images at {data.resolution} px{kept}"

    def open_reports(self, run: RunFolder) -> None:
        """Show the images whose reconstructions the previews are."""
        from gtool.train.reports import save_grid

        shown = self._shown().numpy()
        save_grid(run, "real", shown, self.recipe.sample.columns, {"dataset": self.recipe.data.dataset})

    def preview(self) -> np.ndarray:
        """Give back the same images as ever."""
        from gtool.train.tokenizer import reconstruct

        return reconstruct(self.state.ema, self._shown(), self.compute)[0].numpy()

    def measure(self) -> dict[str, float]:
        """Score reconstructions of images that training does not see."""
        from gtool.train.tokenizer import measure

        return measure(self.state.ema, self._held_out(self.recipe.train.metric_images), self.compute)

    def next_command(self, run: RunFolder) -> str:
        """Return how to train the prior."""
        return f"gtool train prior --tokenizer {run.path}"

    def _shown(self) -> Any:
        return self._held_out(self.recipe.sample.num)

    def _held_out(self, most: int) -> Any:
        from gtool.data.loader import read_images

        return read_images(self.images, self.held_out[:most])
