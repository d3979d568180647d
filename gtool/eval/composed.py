"""Pictures of a prior as a side of a comparison: composed from conditions of its own data set as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gtool import console
from gtool.data.conditions_for_sampling import held_out_of
from gtool.data.loader import read_conditions
from gtool.errors import CheckpointError
from gtool.metrics.images import permutation
from gtool.models.prior.autoregressive import BATCH, Choice, Request
from gtool.models.prior.conditional_generator import codes_of_depth, codes_of_labels, compose_pictures
from gtool.runtime.device import Compute
from gtool.runtime.random import derive_seed
from gtool.sample.prior_options import TOP_K, recipe_of

BLOCK = 256  # images whose conditions are held at a time


@dataclass(frozen=True)
class Composed:
    """Pictures that a prior composes; picture i is a function of (seed, i).

    images, places: the data set that conditions are taken from, and which of its images; None without conditions.
    """

    composer: Any
    compute: Compute
    seed: int
    count: int
    images: Any = None
    places: np.ndarray | None = None
    taken_from: str = "nothing"
    start: int = 0  # number of the first picture

    @property
    def grain(self) -> int:
        """Parts begin at multiples of this: pictures are composed so many at a time."""
        return BATCH

    @property
    def choice(self) -> Choice:
        """How codes are drawn."""
        return Choice(top_k=min(TOP_K, self.composer.tokenizer.codebook_size))

    @property
    def about(self) -> dict[str, Any]:
        """What a record says of these pictures."""
        return {"sampling": {"top_k": self.choice.top_k, "conditions": self.taken_from}}

    def part(self, start: int, stop: int) -> Composed:
        """Return pictures `start` to `stop` alone."""
        return replace(self, start=self.start + start, count=stop - start)

    def batches(self, batch_size: int) -> Iterator[torch.Tensor]:
        """Yield uint8 (b, 3, R, R); `batch_size` is not looked at, so that it changes no picture."""
        last = self.start + self.count
        for start in range(self.start, last, BLOCK):
            indices = torch.arange(start, min(start + BLOCK, last))
            request = Request(self._conditions(indices), indices, self.seed, self.choice)
            for step in compose_pictures(self.composer, request, self.compute, BATCH):
                if step.pictures is not None:
                    yield step.pictures

    def _conditions(self, indices: torch.Tensor) -> torch.Tensor:
        if self.images is None or self.places is None:
            return torch.zeros(len(indices), 1, dtype=torch.int64)
        found = read_conditions(self.images, self.places[indices.numpy() % len(self.places)])
        if self.images.condition == "segmentation":
            return codes_of_labels(self.composer, found.numpy(), self.compute)
        if self.images.condition == "depth":
            return codes_of_depth(self.composer, found, self.compute)
        return found[:, None]


def open_composed(
    composer: Any, meta: dict[str, Any], path: Path, request: Any, count: int, compute: Compute
) -> Composed:
    """Return pictures to score: of held-out conditions where there are enough of them, else of all, by the seed.

    Raises:
        CheckpointError: conditions are needed, and the weights do not say what they were trained on.
        DataError: that data set is not here.
    """
    kind = composer.prior.config.condition
    if kind == "none":
        return Composed(composer, compute, request.seed, count)
    recipe = recipe_of(meta, path)
    if recipe is None:
        raise CheckpointError(f"{path}: does not say what it was trained on, and composes from its {kind}")
    images, kept = held_out_of(recipe, compute, "another run")
    places, which = kept, "held-out"
    if count > len(kept):
        places, which = np.arange(len(images)), "all"
        console.notice(
            f"only {len(kept):,} images were kept aside: conditions of all {len(images):,} are used"
        )
    order = permutation(len(places), derive_seed("eval-conditions", request.seed))
    name = f"{kind} of {recipe.data.dataset}, {which}"
    return Composed(composer, compute, request.seed, count, images, places[order], name)
