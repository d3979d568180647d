"""What stroke predictors add to `gtool train`: pictures to paint, paintings, the error that is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gtool.data.held_out import load_images, open_images

if TYPE_CHECKING:
    import numpy as np

    from gtool.config.recipe import Recipe
    from gtool.io.run_folder import RunFolder
    from gtool.runtime.device import Compute

BUILT_IN = "scenes"  # the data set's name that stands for pictures drawn here: leaves and scenes
SIDE = (
    512  # pixels that a user's images are read at: details down to a quarter of the side are cut out of them
)


def open_inputs(recipe: Recipe) -> Any:
    """Find the user's images, without torch; None where pictures are drawn.

    Raises:
        DataError: no such data, or none that can be used.
    """
    return None if recipe.data.dataset == BUILT_IN else open_images(recipe)


def check(recipe: Recipe, config: Any, processes: int) -> None:
    """Find out, before any data is read, whether the recipe can be trained.

    Raises:
        RecipeError: it cannot.
    """
    from gtool.train.strokes import require_crops

    require_crops(recipe, processes)


def step_flops(recipe: Recipe, forward: dict[str, float]) -> float:
    """Return the floating-point operations of training for each patch: a forward and a backward, and looking ahead."""
    # One patch in five of those of pictures is the whole of four others, painted by the average beforehand.
    return (3.0 + 0.2 * (1 - recipe.strokes.known_share)) * forward["predictor"]


class Trainer:
    """A stroke predictor in training."""

    preview_columns = None
    ranked_by = "left_gain"

    def __init__(self, recipe: Recipe, config: Any, inputs: Any, compute: Compute) -> None:
        from gtool.train.stroke_targets import cut_pictures
        from gtool.train.strokes import init_state, step

        check(recipe, config, compute.world_size)
        self.recipe, self.config, self.compute = recipe, config, compute
        images = None if inputs is None else load_images(inputs, recipe, SIDE, compute)
        self.num_images = None if images is None else len(images)
        pictures = None if images is None else cut_pictures(images.images, recipe)
        self.state = init_state(recipe, config, pictures, compute)
        self.step = step

    def describe_data(self) -> str:
        """Return what pictures there are."""
        pictures = f"{len(self.state.pictures.lessons):,} pictures"
        if self.num_images is None:
            return f"strokes and {pictures} made on the spot"
        drawn = self.recipe.strokes.drawn_share
        made = f", {100 * drawn:.0f} % of them drawn" if drawn else ""
        return f"strokes and {pictures} of {self.recipe.data.dataset}, {self.num_images:,} images{made}"

    def open_reports(self, run: RunFolder) -> None:
        """Show the pictures that the previews are painted after."""
        from gtool.train.reports import save_grid

        dataset = "drawn by gtool" if self.num_images is None else self.recipe.data.dataset
        targets = self.state.pictures.shown.numpy()
        save_grid(run, "real", targets, self.recipe.sample.columns, {"dataset": dataset})

    def preview(self) -> np.ndarray:
        """Paint the same pictures as ever."""
        from gtool.train.strokes import preview

        return preview(self.state).numpy()

    def measure(self) -> dict[str, float]:
        """Return the share of the error that one look's strokes leave."""
        from gtool.train.strokes import measure

        return measure(self.state, min(self.recipe.train.metric_images, 256))

    def next_command(self, run: RunFolder) -> str:
        """Return how to paint."""
        return f"gtool paint photo.jpg --weights {run.path}"
