"""Images of a prior as the generated side of a comparison, from conditions of its own data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gtool import console
from gtool.config.recipe import recipe_of_weights
from gtool.data.conditions import ids_of_depth, ids_of_maps
from gtool.data.held_out import held_out_of
from gtool.data.loader import read_conditions
from gtool.errors import CheckpointError
from gtool.models.generate import TrainedModel
from gtool.models.prior.pipeline import encode_condition
from gtool.models.prior.sampling import BATCH
from gtool.runtime.random import derive_seed, permutation


@dataclass(frozen=True)
class Composed:
    """Images that a prior samples; image i is a function of (seed, i).

    images, places: the data set that conditions are taken from, and which of its images; None without conditions.
    """

    model: TrainedModel
    seed: int
    count: int
    images: Any = None
    places: np.ndarray | None = None
    taken_from: str = "nothing"
    start: int = 0  # number of the first image

    @property
    def grain(self) -> int:
        """Parts begin at multiples of this: images are sampled so many at a time."""
        return BATCH

    @property
    def about(self) -> dict[str, Any]:
        """What a record says of these images."""
        return {"sampling": {"top_k": self.model.default_params.top_k, "conditions": self.taken_from}}

    def part(self, start: int, stop: int) -> Composed:
        """Return images `start` to `stop` alone."""
        return replace(self, start=self.start + start, count=stop - start)

    def batches(self, batch_size: int) -> Iterator[torch.Tensor]:
        """Yield uint8 (b, 3, R, R); `batch_size` is not looked at, so that it changes no image."""
        indices = torch.arange(self.start, self.start + self.count)
        condition = None if self.images is None else self._conditions
        yield from self.model.batches(indices, self.seed, condition=condition)

    def _conditions(self, indices: torch.Tensor) -> torch.Tensor:
        assert self.places is not None
        found = read_conditions(self.images, self.places[indices.numpy() % len(self.places)])
        if self.images.condition == "class":
            return found[:, None]
        cell_ids = ids_of_maps if self.images.condition == "segmentation" else ids_of_depth
        return encode_condition(self.model.network, found, self.model.compute, cell_ids)


def open_composed(model: TrainedModel, seed: int, count: int) -> Composed:
    """Return images to score: of held-out conditions where there are enough of them, else of all, by the seed.

    Raises:
        CheckpointError: conditions are needed, and the weights do not say what they were trained on.
        DataError: that data set is not here.
    """
    kind = model.network.prior.config.condition
    if kind == "none":
        return Composed(model, seed, count)
    recipe = recipe_of_weights(model.meta, model.path)
    if recipe is None:
        raise CheckpointError(
            f"{model.path}: does not say what it was trained on, and samples from its {kind}"
        )
    images, kept = held_out_of(recipe, model.compute, "another run")
    places, which = kept, "held-out"
    if count > len(kept):
        places, which = np.arange(len(images)), "all"
        console.notice(
            f"only {len(kept):,} images were kept aside: conditions of all {len(images):,} are used"
        )
    order = permutation(len(places), derive_seed("eval-conditions", seed))
    name = f"{kind} of {recipe.data.dataset}, {which}"
    return Composed(model, seed, count, images, places[order], name)
