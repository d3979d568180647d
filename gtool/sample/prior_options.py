"""What `gtool sample` of a prior was asked for, understood before any network is built."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool.config.recipe import validate
from gtool.config.schema import Recipe
from gtool.errors import CheckpointError, RecipeError
from gtool.io.run_folder import read_meta
from gtool.models import registry
from gtool.sample.options import Job

if TYPE_CHECKING:
    from gtool.models.prior.autoregressive import Choice

TOP_K = 100  # likeliest codes that are drawn from, unless the user says otherwise
KEEP = 0.5
Size = tuple[int, int]  # height and width in pixels
FLAG_OF = {"class": "--class 3", "segmentation": "--segmentation map.png", "depth": "--depth map.png"}
COMPOSES_FROM = {
    "none": "nothing",
    "class": "classes",
    "segmentation": "label maps",
    "depth": "depth maps",
}


@dataclass(frozen=True)
class Plan:
    """A job with what its weights file says of itself.

    size: that is asked for, None where it is to follow from a map or the training.
    keep: share of the rows that --complete keeps.
    """

    job: Job
    config: Any  # ComposerConfig
    meta: dict[str, Any]
    choice: Choice
    size: Size | None
    keep: float

    @property
    def condition(self) -> str:
        """What the prior composes from: none, class, segmentation or depth."""
        return str(self.config.prior.condition)

    @property
    def trained_size(self) -> Size:
        """Height and width of the pictures of the training."""
        return self.config.resolution, self.config.resolution

    @property
    def down(self) -> int:
        """Pixels of a code's side."""
        return int(self.config.tokenizer.down)

    @property
    def given(self) -> Path | str | None:
        """The condition that the user names."""
        request = self.job.request
        return {"class": request.of_class, "segmentation": request.segmentation, "depth": request.depth}.get(
            self.condition
        )

    @cached_property
    def recipe(self) -> Recipe | None:
        """What the prior was trained on, where its file says it."""
        return recipe_of(self.meta, self.job.weights)

    @property
    def can_be_untold(self) -> bool:
        """Whether the prior has learned to compose from a condition that says nothing."""
        recipe = self.meta.get("recipe")
        prior = recipe.get("prior") if isinstance(recipe, dict) else None
        return isinstance(prior, dict) and prior.get("condition_dropout", 0.0) != 0

    @property
    def is_untold(self) -> bool:
        """Whether it is to: what is asked for has nothing to do with the images of its own data set."""
        request = self.job.request
        return self.can_be_untold and self.given is None and bool(request.complete or request.size)

    @property
    def num_labels(self) -> int:
        """Classes or labels that there are, without that for none."""
        own = self.config.condition_tokenizer
        if own is not None and self.condition == "segmentation":
            return int(own.image_channels)
        return int(self.config.prior.condition_size) - (0 if self.config.prior.shared_embedding else 1)


def recipe_of(meta: dict[str, Any], path: Path) -> Recipe | None:
    """Return the data and the seed that weights were trained with, where their file says it; nothing else of it.

    So weights of a gtool whose recipes said other things can still be used.

    Raises:
        CheckpointError: data that make no sense.
    """
    table = meta.get("recipe")
    if not isinstance(table, dict) or not isinstance(table.get("data"), dict):
        return None
    train = table.get("train")
    seed = {"seed": train["seed"]} if isinstance(train, dict) and "seed" in train else {}
    values = {"model_name": str(meta.get("model")), "data": table["data"], "train": seed}
    try:
        return validate(Recipe, values, str(path), "recipe.")
    except RecipeError as bad:
        raise CheckpointError(str(bad)) from None


def make_plan(job: Job) -> Plan:
    """Understand a job.

    Raises:
        RecipeError: flags that mean nothing for this prior.
        CheckpointError: a description that lacks something.
    """
    meta = read_meta(job.weights)
    try:
        config = validate(
            registry.config_class("prior"), meta.get("config") or {}, str(job.weights), "config."
        )
    except RecipeError as bad:
        raise CheckpointError(str(bad)) from None
    request = job.request
    if request.keep is not None and request.complete is None:
        raise RecipeError("--keep says how much of a photo stays; add --complete photo.png")
    keep = KEEP if request.keep is None else request.keep
    if not 0 <= keep <= 1:
        raise RecipeError(f"--keep {keep:g}: a share of the height from 0 to 1")
    plan = Plan(job, config, meta, _choice(job, config.prior.codebook_size), None, keep)
    _refuse_conditions(plan)
    if request.size is None:
        return plan
    size = read_size(request.size, plan.down)
    refuse_size(plan, size, f"--size {request.size}")
    return replace(plan, size=size)


def _choice(job: Job, codebook_size: int) -> Choice:
    from gtool.models.prior.autoregressive import Choice

    request = job.request
    top_k = min(TOP_K, codebook_size) if request.top_k is None else request.top_k
    choice = Choice(1.0 if request.temperature is None else request.temperature, top_k, request.top_p)
    try:
        choice.check(codebook_size)
    except RecipeError as bad:
        raise RecipeError(f"--{bad}") from None
    return choice


def _refuse_conditions(plan: Plan) -> None:
    """Refuse a condition of another kind than the prior's, and pictures that none is named for."""
    request, path = plan.job.request, plan.job.weights
    asked = {"class": request.of_class, "segmentation": request.segmentation, "depth": request.depth}
    right = FLAG_OF.get(plan.condition)
    for kind, value in asked.items():
        if value is not None and kind != plan.condition:
            instead = f"; use {right}" if right else ""
            raise RecipeError(
                f"--{kind}: {path}: this prior composes from {COMPOSES_FROM[plan.condition]}{instead}"
            )
    if right and plan.given is None and not plan.can_be_untold:
        named = next((f for f, v in (("--complete", request.complete), ("--size", request.size)) if v), None)
        if named:
            raise RecipeError(
                f"{named}: {path}: this prior composes from {COMPOSES_FROM[plan.condition]}; add {right}"
            )


def read_size(text: str, down: int) -> Size:
    """Read --size, written as WIDTHxHEIGHT; returns height and width.

    Raises:
        RecipeError: something else, or no multiples of `down`.
    """
    found = re.fullmatch(r"\s*(\d{1,6})\s*[xX]\s*(\d{1,6})\s*", text)
    if found is None:
        raise RecipeError(f"--size {text}: write WIDTHxHEIGHT in pixels, as 512x256")
    width, height = int(found[1]), int(found[2])
    if width % down or height % down:
        near = [max(1, round(side / down)) * down for side in (width, height)]
        raise RecipeError(
            f"--size {text}: both sides must be multiples of {down}, the pixels of a code, as {near[0]}x{near[1]}"
        )
    return height, width


def refuse_size(plan: Plan, size: Size, where: str) -> None:
    """Refuse a size smaller than that of the training, or a larger one where only rows of codes can be gone on with.

    Raises:
        RecipeError: naming `where` it comes from.
    """
    side = plan.config.resolution
    if min(size) < side:
        raise RecipeError(f"{where}: smaller than the {side}x{side} pixels that this prior was trained on")
    order = plan.config.prior.order
    if size != plan.trained_size and order != "raster":
        raise RecipeError(
            f"{where}: this prior predicts codes in the order `{order}`, which only fits {side}x{side} pixels; "
            "larger pictures need the order `raster`"
        )
