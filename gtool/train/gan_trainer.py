"""What adversarial models add to `gtool train`: images to learn from, grids of samples, rfd and swd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gtool.data.held_out import load_images, open_images

if TYPE_CHECKING:
    import numpy as np

    from gtool.config.recipe import Recipe
    from gtool.io.run_folder import RunFolder
    from gtool.metrics.weight_free import Yardstick
    from gtool.runtime.device import Compute


def open_inputs(recipe: Recipe) -> Any:
    """Find the images, without torch.

    Raises:
        DataError: no such data, or none that can be used.
    """
    return open_images(recipe)


def check(recipe: Recipe, config: Any, processes: int) -> None:
    """Find out, before any data is read, whether the networks can do what the recipe asks for.

    Raises:
        RecipeError: they cannot.
    """
    from gtool.train.gan import check_networks

    check_networks(recipe, config, processes)


def step_flops(recipe: Recipe, forward: dict[str, float]) -> float:
    """Return the floating-point operations of training for each real image, from those of the two forwards.

    A forward with its backward costs three forwards; an exact penalty costs about 6.3 forwards of the discriminator
    (counted for the CIFAR-10 networks), a finite difference three for each batch it looks at. The path length is a
    penalty of the same kind on the generator. Penalties count as often as they are due.
    """
    generator, discriminator = forward["generator"], forward["discriminator"]
    loss, train = recipe.loss, recipe.train
    penalties = [loss.gradient_penalty, loss.r1_gamma, loss.r2_gamma]
    exact = 6.3
    each = exact if loss.penalty_method == "exact" else 3.0
    penalty = each * sum(1 for weight in penalties if weight) / loss.penalty_interval
    path = exact / (loss.path_length_shrink * loss.path_length_interval) if loss.path_length else 0.0
    ratio = (train.generator_batch_size or train.batch_size) / (train.n_critic * train.batch_size)
    for_discriminator = (0.0 if train.share_fakes else generator) + (6.0 + penalty) * discriminator
    return for_discriminator + ratio * (3.0 * (generator + discriminator) + path * generator)


class Trainer:
    """A generator and a discriminator in training."""

    preview_columns = None
    ranked_by = "rfd"

    def __init__(self, recipe: Recipe, config: Any, inputs: Any, compute: Compute) -> None:
        from gtool.data.loader import Batches
        from gtool.train.gan import init_state, step

        check(recipe, config, compute.world_size)
        self.recipe, self.config, self.compute = recipe, config, compute
        self.images = load_images(inputs, recipe, recipe.data.resolution, compute)
        batches = Batches(
            self.images,
            seed=recipe.train.seed,
            flip=recipe.data.flip,
            rank=compute.rank,
            world_size=compute.world_size,
        )
        self.state = init_state(recipe, config, batches, compute)
        self.step = step
        self.yardstick: Yardstick | None = None

    def describe_data(self) -> str:
        """Return the data set with its size."""
        data = self.recipe.data
        return f"{data.dataset}, {len(self.images):,} images at {data.resolution} px"

    def open_reports(self, run: RunFolder) -> None:
        """Show real images and measure the floor of the scores."""
        import numpy as np

        from gtool.metrics.weight_free import Yardstick
        from gtool.train.reports import save_grid

        recipe = self.recipe
        shown = np.asarray(self.images.images[np.arange(min(recipe.sample.num, len(self.images)))])
        save_grid(run, "real", shown, recipe.sample.columns, {"dataset": recipe.data.dataset})
        if recipe.train.metrics and len(self.images) >= 4:
            self.yardstick = Yardstick.build(
                self.images.images, num=recipe.train.metric_images, device=self.compute.device
            )

    def preview(self) -> np.ndarray:
        """Generate from the fixed latents."""
        return self._generate(self.recipe.sample.num, self.recipe.train.seed)

    def measure(self) -> dict[str, float]:
        """Score fresh images of the averaged generator; their seed is never one that a user samples with by chance."""
        if self.yardstick is None:
            return {}
        from gtool.runtime.random import derive_seed

        train = self.recipe.train
        scores = self.yardstick.score(self._generate(train.metric_images, derive_seed("metrics", train.seed)))
        wanted = tuple(train.metrics)
        return {name: value for name, value in scores.items() if name.startswith(wanted) or name == "rfd"}

    def next_command(self, run: RunFolder) -> str:
        """Return how to sample."""
        return f"gtool sample {run.path} --num 64"

    def _generate(self, count: int, seed: int) -> np.ndarray:
        import torch

        from gtool.models.generate import generate

        chunks = generate(self.state.ema, seed, torch.arange(count), self.compute)
        return torch.cat(list(chunks)).numpy()
