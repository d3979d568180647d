"""Training steps of recipes without their data: networks as trained, batches that are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gtool.config.recipe import find_recipe, make_recipe, read_table, validate
from gtool.config.schema import Recipe
from gtool.losses.perceptual import LPIPS
from gtool.models import registry
from gtool.train import gan, strokes
from gtool.train import prior as prior_training
from gtool.train import tokenizer as tokenizer_training

CONDITION_SIZES = {"none": 1, "class": 1001, "segmentation": 12, "depth": 32}


class DrawnImages:
    """Batches of noise, uint8 (N, 3, R, R), a function of the position."""

    def __init__(self, resolution: int) -> None:
        self.resolution, self.position = resolution, 0

    def next(self, count: int) -> torch.Tensor:
        self.position += count
        random = torch.Generator().manual_seed(self.position)
        return torch.randint(256, (count, 3, self.resolution, self.resolution), generator=random).byte()


class DrawnCodes:
    """Batches of codes with condition ids, a function of the position."""

    def __init__(self, config: Any) -> None:
        self.config, self.position = config, 0

    def next(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.position += count
        random = torch.Generator().manual_seed(self.position)
        codes = torch.randint(self.config.codebook_size, (count, *self.config.grid), generator=random)
        ids = (count, self.config.condition_ids)
        return codes, torch.randint(self.config.condition_size, ids, generator=random)


def shipped(name: str, *settings: str) -> Recipe:
    """Return a recipe of the repository, `vqgan/scenes`, with settings on top."""
    return make_recipe(read_table(find_recipe(name)), settings, where=name)


def config_of(recipe: Recipe, tokenizer: dict[str, Any] | None = None) -> Any:
    """Return the checked config of a recipe's networks; a prior is of `tokenizer`, the [model] table of one."""
    table = {"resolution": recipe.data.resolution, **recipe.model}
    if recipe.model_name == "prior":
        condition = recipe.data.condition
        sizes = {"condition": condition, "condition_size": CONDITION_SIZES[condition]}
        table["prior"] = {**table.get("prior", {}), **sizes}
        table["tokenizer"] = {"resolution": recipe.data.resolution, **(tokenizer or {"kind": "palette"})}
    return validate(registry.config_class(recipe.model_name), table, "test", "model.")


def begin(recipe: Recipe, config: Any, compute: Any) -> tuple[Any, Callable[[Any], dict[str, torch.Tensor]]]:
    """Return the state of a recipe at step 0, its schedules half done, and its step; a frozen LPIPS is random."""
    family, images = recipe.model_name, DrawnImages(recipe.data.resolution)
    if family in ("transgan", "gansformer"):
        state: Any = gan.init_state(recipe, config, images, compute)
        step: Any = gan.step
    elif family == "vqgan":
        lpips = LPIPS() if recipe.reconstruction.perceptual_kind == "lpips" else None
        state = tokenizer_training.init_state(recipe, config, images, compute, lpips)
        step = tokenizer_training.step
    elif family == "prior":
        (pipeline,) = registry.network_module(family).build(config)
        state = prior_training.init_state(recipe, config, pipeline.tokenizer.state_dict(), compute)
        state.batches, step = DrawnCodes(config.prior), prior_training.step
    else:
        pictures = torch.randint(256, (8, 3, 128, 128)).byte()
        drawn = strokes.Pictures(pictures, pictures, pictures)
        state, step = strokes.init_state(recipe, config, drawn, compute), strokes.step
    state.progress = 0.5
    return state, step
