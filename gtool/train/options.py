"""What a `gtool train` command line asks for, worked out before anything heavy is imported or written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtool.config.recipe import (
    Recipe,
    find_recipe,
    first_reason,
    make_recipe,
    overlay,
    read_table,
    shipped_recipes,
    validate,
)
from gtool.data.names import find_dataset
from gtool.errors import CheckpointError, GToolError, RecipeError
from gtool.io.run_folder import RunFolder, find_start, newest_run, open_run
from gtool.models import registry
from gtool.runtime.processes import has_gpu

FINETUNE = "finetune"  # the recipe of models that can go on from trained weights


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line of `gtool train`, as typed."""

    model: str
    recipe: str | None = None  # a shipped name or a TOML file
    settings: list[str]  # --set a.b=value, in order
    flags: Mapping[str, Any]  # recipe key -> value, from the dedicated flags
    finetune: str | None = None  # pictures to go on with from trained weights: a data set's name
    out: Path | None = None
    resume: str | None = None  # "auto" or a run folder
    device: str = "auto"
    num_processes: int | None = None
    tracker: str | None = None
    dry_run: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class Plan:
    """What will run."""

    recipe: Recipe  # resolved: its `model` table is complete
    config: Any  # the model's own config
    name: str  # of the recipe
    run: RunFolder | None  # to go on with


def make_plan(request: Request) -> Plan:
    """Resolve recipe, overrides and the run to resume.

    Raises:
        RecipeError: unknown model, recipe, key; wrong type; impossible combination.
        DataError: the data set's name leads nowhere.
        CheckpointError: the run to resume is not there.
    """
    learns_from = registry.find_model(request.model).learns_from
    _refuse_unknown_tracker(request.tracker)
    if request.finetune is not None:
        _refuse_finetune(request)
        request = replace(request, flags={**request.flags, "data.dataset": request.finetune})
    run = _run_to_resume(request)
    if run is not None and request.recipe and request.resume != "auto":
        raise RecipeError("--recipe cannot change a run that is resumed; its own recipe.toml is used")
    if run is not None:
        _read_recipe(run.recipe, request.model)  # before anything is looked for on its behalf
    tokenizer = None
    if learns_from is not None:
        from gtool.train.prior_tokenizer import with_tokenizer

        request, tokenizer = with_tokenizer(request, run)
    name, path = ("resumed", run.recipe) if run else _choose_recipe(request)
    table = _read_recipe(path, request.model)
    if tokenizer is not None and run is None:
        overlay(table, ["data", "resolution"], tokenizer.resolution)
        overlay(table, ["model", "tokenizer"], dict(tokenizer.config))
    original = make_recipe(table, where=str(path))
    if "train.kimg" in request.flags and isinstance(table.get("train"), dict):
        # A length asked for in images replaces one in minutes: schedules then never look at the clock, and a run that
        # is killed and resumed ends with the same bits.
        table["train"].pop("minutes", None)
    for key, value in request.flags.items():
        overlay(table, key.split("."), value)
    settings = [setting for setting in request.settings if setting.partition("=")[0] not in request.flags]
    recipe = make_recipe(table, settings, where=str(path))
    find_dataset(recipe.data.dataset)  # raises when the name leads nowhere
    if recipe.train.weights is not None and run is None:
        _refuse_weights(recipe)
        recipe = _with_network_of_weights(recipe, table, settings, path)
    if tokenizer is not None:
        # What a prior is told of an image, and what it learns images from, are one thing.
        overlay(recipe.model, ["prior", "condition"], recipe.data.condition)
    config = _configure(recipe, original.data.resolution, path)
    resolved = recipe.model_copy(update={"model": config.model_dump(mode="json", exclude_none=True)})
    _check_batches(resolved, request.num_processes or 1)
    _check_policy(resolved)
    if run:
        _check_same_networks(original, resolved, run)
    return Plan(resolved, config, name, run)


def _read_recipe(path: Path, model: str) -> dict[str, Any]:
    """Return the tables of a recipe file.

    Raises:
        RecipeError: of another model.
    """
    table = read_table(path)
    if table.get("model_name") != model:
        raise RecipeError(f"recipe {path}: is for the model {table.get('model_name')!r}, not for `{model}`")
    return table


def _refuse_finetune(request: Request) -> None:
    if not _can_finetune(request.model):
        raise RecipeError(
            f"--finetune is for paint-transformer; {request.model} learns from pictures of yours by "
            f"--dataset {request.finetune}"
        )
    if "data.dataset" in request.flags:
        raise RecipeError("--finetune names the pictures already; leave --dataset out")


def _can_finetune(model: str) -> bool:
    return f"{model}/{FINETUNE}" in shipped_recipes(model)


def _refuse_weights(recipe: Recipe) -> None:
    if not _can_finetune(recipe.model_name):
        raise RecipeError(
            f"--weights: {recipe.model_name} cannot begin with weights, which hold one of its networks alone; "
            "go on with a whole run by --resume"
        )


def _with_network_of_weights(
    recipe: Recipe, table: dict[str, Any], settings: list[str], path: Path
) -> Recipe:
    """Take the network of the weights that training begins with, whatever the recipe's own would be.

    Raises:
        CheckpointError: the weights cannot be used.
        RecipeError: a setting asks for another network.
    """
    weights = find_start(str(recipe.train.weights), recipe.model_name)
    from gtool.models.trained import open_trained

    trained = open_trained(weights)
    if trained.model != recipe.model_name:
        raise CheckpointError(f"{weights}: weights of {trained.model}, not of {recipe.model_name}")
    found = trained.config.model_dump(mode="json", exclude_none=True)
    table["model"] = found
    recipe = make_recipe(table, settings, where=str(path))
    if recipe.model != found:
        other = next(key for key in recipe.model if recipe.model[key] != found.get(key))
        raise RecipeError(f"model.{other}: the network is that of {weights}; leave it out")
    return recipe


def _refuse_unknown_tracker(tracker: str | None) -> None:
    from importlib.util import find_spec

    if tracker not in (None, "tensorboard"):
        raise RecipeError(f"--tracker {tracker}: only tensorboard is known")
    if tracker and find_spec("tensorboard") is None:
        raise GToolError("--tracker tensorboard: not installed; run `pip install 'gtool[tensorboard]'`")


def _run_to_resume(request: Request) -> RunFolder | None:
    if request.resume is None:
        return None
    if request.resume != "auto":
        return open_run(Path(request.resume).expanduser())
    if request.out is not None:
        return open_run(request.out) if (request.out / "recipe.toml").is_file() else None
    return newest_run(request.model, with_weights=False)


def _choose_recipe(request: Request) -> tuple[str, Path]:
    """Take the recipe asked for, or the data set's; without a GPU its -cpu sibling where there is one."""
    if request.recipe or request.finetune is not None:
        path = find_recipe(request.recipe or FINETUNE, request.model)
        return path.stem, path
    known = [name.partition("/")[2] for name in shipped_recipes(request.model)]
    dataset = str(request.flags.get("data.dataset", "scenes"))
    short = Path(dataset).name.lower()
    near = [name for name in known if re.fullmatch(rf"{re.escape(short)}(-\d+)?", name)]
    near.sort(key=lambda name: name != short)  # the data set's own name before those with a resolution
    exists = Path(dataset).expanduser().exists()
    any_data = "folder" if "folder" in known else "default"
    name = near[0] if near and not exists else any_data
    on_cpu = request.device == "cpu" or (request.device == "auto" and not has_gpu())
    if on_cpu and f"{name}-cpu" in known:
        name = f"{name}-cpu"
    return name, find_recipe(name, request.model)


def _configure(recipe: Recipe, made_for: int, path: Path) -> Any:
    """Build the model's config; stages that were laid out for another resolution are laid out anew."""
    schema = registry.config_class(recipe.model_name)
    values = {"resolution": made_for, **recipe.model}
    config = validate(schema, values, f"recipe {path}", "model.")
    if config.resolution == recipe.data.resolution:
        return config
    try:
        return config.at_resolution(recipe.data.resolution)
    except ValueError as bad:
        raise RecipeError(f"data.resolution = {recipe.data.resolution}: {first_reason(bad)}") from None


def _check_batches(recipe: Recipe, processes: int) -> None:
    train, loss = recipe.train, recipe.loss
    generated = train.generator_batch_size or train.batch_size
    batches = {"train.batch_size": train.batch_size, "train.generator_batch_size": generated}
    if loss.path_length:
        if generated % loss.path_length_shrink:
            raise RecipeError(
                f"loss.path_length_shrink = {loss.path_length_shrink} does not divide the generator's batch "
                f"of {generated}"
            )
        batches["loss.path_length_shrink: the batch"] = generated // loss.path_length_shrink
    for name, batch in batches.items():
        if batch % processes:
            raise RecipeError(f"{name} = {batch} cannot be divided by {processes} processes")
        share = batch // processes
        if share % min(train.micro_batch or share, share):
            raise RecipeError(
                f"{name} = {batch}: {share} a process is no multiple of train.micro_batch = {train.micro_batch}"
            )
    share = generated // processes
    if loss.mode_seeking and min(train.micro_batch or share, share) < 2:
        raise RecipeError(
            "loss.mode_seeking compares two images of one micro-batch: train.micro_batch and the share of a "
            "process must be 2 or more"
        )


def _check_policy(recipe: Recipe) -> None:
    from gtool.train.augment.policies import parse_policy

    try:
        parse_policy(recipe.augment.policy)
    except ValueError as bad:
        raise RecipeError(f"augment.policy: {bad}") from None


def _check_same_networks(original: Recipe, resolved: Recipe, run: RunFolder) -> None:
    if original.model != resolved.model:
        raise RecipeError(
            f"{run.path}: a resumed run keeps its networks; model and data.resolution cannot change"
        )
    for key in ("seed", "batch_size"):
        if getattr(original.train, key) != getattr(resolved.train, key):
            raise CheckpointError(
                f"{run.path}: a resumed run keeps its train.{key}; start a new run to change it"
            )
