"""What stroke predictors add to `gtool train`: pictures of their own making, paintings, the error that is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gtool.errors import RecipeError

if TYPE_CHECKING:
    import numpy as np

    from gtool.checkpoint import RunFolder
    from gtool.device import Compute
    from gtool.recipe import Recipe

BUILT_IN = "scenes"  # the data set's name that stands for pictures drawn here: leaves and scenes


def open_inputs(recipe: Recipe) -> None:
    """Make sure that no other pictures are asked for than those made here.

    Raises:
        RecipeError: a data set that would not be looked at.
    """
    if recipe.data.dataset != BUILT_IN:
        raise RecipeError(
            f"--dataset {recipe.data.dataset}: stroke predictors learn from strokes and pictures of their own making; "
            "leave it out"
        )


def step_flops(recipe: Recipe, forward: dict[str, float]) -> float:
    """Return the floating-point operations of training for each patch: a forward and a backward, and looking ahead."""
    # One patch in five of those of pictures is the whole of four others, painted by the average beforehand.
    return (3.0 + 0.2 * (1 - recipe.strokes.known_share)) * forward["predictor"]


class Trainer:
    """A stroke predictor in training."""

    ranked_by = "left_gain"

    def __init__(self, recipe: Recipe, config: Any, inputs: Any, compute: Compute) -> None:
        from gtool.engines.strokes import init_state, step

        self.recipe, self.compute = recipe, compute
        self.state = init_state(recipe, config, None, compute)
        self.step = step

    def describe_data(self) -> str:
        """Return what pictures there are."""
        return f"strokes and {len(self.state.pictures):,} pictures made on the spot"

    def open_reports(self, run: RunFolder) -> None:
        """Show the pictures that the previews are painted after."""
        from gtool.commands.report import save_grid
        from gtool.engines.strokes import preview_targets

        sample = self.recipe.sample
        targets = preview_targets(self.state, sample.num).numpy()
        save_grid(run, "real", targets, sample.columns, {"dataset": "drawn by gtool"})

    def preview(self) -> np.ndarray:
        """Paint the same pictures as ever."""
        from gtool.engines.strokes import preview

        return preview(self.state, self.recipe.sample.num).numpy()

    def measure(self) -> dict[str, float]:
        """Return the share of the error that one look's strokes leave."""
        from gtool.engines.strokes import measure

        return measure(self.state)

    def next_command(self, run: RunFolder) -> str:
        """Return how to paint."""
        return f"gtool paint photo.jpg --weights {run.path}"
