"""What a `gtool train` command line asks for, decided before anything heavy is imported or written."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from gtool import console
from gtool.config.recipe import (
    as_typed,
    find_recipe,
    first_reason,
    make_recipe,
    overlay,
    parse_setting,
    read_table,
    shipped_recipes,
    validate,
)
from gtool.config.schema import NEEDS, Recipe
from gtool.data.names import find_dataset
from gtool.errors import CheckpointError, DataError, GToolError, RecipeError
from gtool.io.outputs import require_utf8
from gtool.io.run_folder import SHIPPED, RunFolder, find_start, is_state, newest_run, open_run
from gtool.models import registry
from gtool.models.description import read_description
from gtool.runtime.processes import has_gpu
from gtool.train.augment.policies import parse_policy
from gtool.train.options import TRACKERS, TrainOptions
from gtool.train.prior_tokenizer import find_tokenizer

FINETUNE = "finetune"  # the recipe of models that can be fine-tuned


class Training(NamedTuple):
    """What runs: the recipe with a complete `model` table, the model's own config, and the run that is resumed."""

    options: TrainOptions
    recipe: Recipe
    config: Any
    recipe_name: str
    resumed: RunFolder | None


def resolve(options: TrainOptions) -> Training:
    """Decide what runs: model defaults < recipe < `--set` < flags, or the recipe of a run that is resumed.

    Raises:
        RecipeError: unknown model, recipe, key; wrong type; impossible combination.
        DataError: the data set's name leads nowhere.
        CheckpointError: the run to resume, or weights that are needed, are not there.
    """
    row, flags = registry.find_model(options.model), options.flags
    _check_options(options)
    if options.finetune is not None:
        flags["data.dataset"] = options.finetune
    run = _run_to_resume(options)
    if run is not None:
        name, path = "resumed", run.recipe
        table = _read_recipe(path, options.model)
        if row.learns_from is not None:
            _keep_tokenizer(options, flags, table)
    else:
        tokenizer = None if row.learns_from is None else _choose_tokenizer(options, flags, row.learns_from)
        name, path = _choose_recipe(options, flags)
        table = _read_recipe(path, options.model)
        if options.finetune is not None:
            overlay(table, ["train", "weights"], table.get("train", {}).get("weights", SHIPPED))
        if tokenizer is not None:
            overlay(table, ["data", "resolution"], tokenizer.resolution)
            overlay(table, ["model", "tokenizer"], dict(tokenizer.config))
    original = make_recipe(table, where=str(path))
    if "train.kimg" in flags and isinstance(table.get("train"), dict):
        # A length asked for in images replaces one in minutes: schedules then never look at the clock, and a run that
        # is killed and resumed ends with the same bits.
        table["train"].pop("minutes", None)
    recipe = make_recipe(table, options.settings, where=str(path), flags=flags)
    typed = as_typed(options.settings, flags)
    check_keys(recipe, str(path), typed)
    if run is not None:
        _check_same_data(original, recipe, run)
    find_dataset(recipe.data.dataset)  # raises when the name leads nowhere
    require_utf8(recipe.data.dataset)
    require_utf8(options.out or "")
    if recipe.train.weights is not None and run is None:
        recipe = _with_network_of_weights(recipe, table, options.settings, flags, str(path))
    if row.learns_from is not None:
        overlay(recipe.model, ["prior", "condition"], recipe.data.condition)
    config = _configure(recipe, original.data.resolution, path, typed)
    resolved = recipe.model_copy(update={"model": config.model_dump(mode="json", exclude_none=True)})
    _check_batches(resolved, options.num_processes or 1)
    try:
        parse_policy(resolved.augment.policy)
    except ValueError as bad:
        raise RecipeError(f"{typed.get('augment.policy', 'augment.policy')}: {bad}") from None
    if run:
        _check_same_training(original, resolved, run)
    return Training(options, resolved, config, name, run)


def _read_recipe(path: Path, model: str) -> dict[str, Any]:
    """Return the tables of a recipe file for a model."""
    table = read_table(path)
    if table.get("model_name") != model:
        raise RecipeError(f"recipe {path}: is for the model {table.get('model_name')!r}, not for `{model}`")
    return table


def _check_options(options: TrainOptions) -> None:
    """Refuse what means nothing, whatever the recipe says."""
    model = options.model
    if options.tracker not in (None, *TRACKERS):
        raise RecipeError(f"--tracker {options.tracker}: unknown; use {', '.join(TRACKERS)}")
    if options.tracker and find_spec(options.tracker) is None:
        extra = f"pip install 'gtool[{options.tracker}]'"
        raise GToolError(f"--tracker {options.tracker}: not installed; run `{extra}`")
    if options.finetune is not None and not registry.find_model(model).finetunes:
        models = ", ".join(registry.models_that(finetunes=True))
        raise RecipeError(
            f"--finetune is for {models}; {model} learns from your images by --dataset {options.finetune}"
        )
    if options.finetune is not None and "data.dataset" in options.flags:
        raise RecipeError("--finetune names the images already; leave --dataset out")
    if options.resume not in (None, "auto"):
        if options.recipe:
            raise RecipeError("--recipe cannot change a run that is resumed; its own recipe.toml is used")
        if options.out is not None:
            raise RecipeError(f"--out names a new run; --resume {options.resume} goes on in its own folder")


def check_keys(recipe: Recipe, where: str, typed: Mapping[str, str]) -> None:
    """Refuse what means nothing for the model, by the table of models; say what of the typed has no effect.

    typed: keys of the command line -> its words.
    """
    model = recipe.model_name
    default = Recipe(model_name=model)
    for key in registry.foreign_keys(model):
        if attrgetter(key)(recipe) != attrgetter(key)(default):
            words = next(
                (typed[name] for name in typed if f"{name}.".startswith(f"{key}.")), f"{where}: {key}"
            )
            models = ", ".join(registry.models_with(key))
            raise RecipeError(f"{words}: means nothing for {model}, only for {models}")
    for key in sorted(typed.keys() & NEEDS.keys()):
        if not any(attrgetter(other)(recipe) not in (0, None, "", "none") for other in NEEDS[key]):
            console.warning(f"{typed[key]}: has no effect without {' or '.join(NEEDS[key])}")


def _run_to_resume(options: TrainOptions) -> RunFolder | None:
    if options.resume is None:
        return None
    if options.resume != "auto":
        path = Path(options.resume).expanduser()
        return open_run(path.parent if is_state(options.resume) else path)
    if options.out is None:
        found = newest_run(options.model, with_weights=False)
    else:
        found = open_run(options.out) if (options.out / "recipe.toml").is_file() else None
    if found is None:
        console.notice("--resume auto: no run to go on with; a new one begins")
    return found


def _choose_recipe(options: TrainOptions, flags: Mapping[str, Any]) -> tuple[str, Path]:
    """Take the recipe asked for, or the data set's; without a GPU its -cpu sibling where there is one."""
    if options.recipe or options.finetune is not None:
        path = find_recipe(options.recipe or FINETUNE, options.model)
        return path.stem, path
    known = [name.partition("/")[2] for name in shipped_recipes(options.model)]
    dataset = str(flags.get("data.dataset", "scenes"))
    short = Path(dataset).name.lower()
    near = [name for name in known if re.fullmatch(rf"{re.escape(short)}(-\d+)?", name)]
    near.sort(key=lambda name: name != short)  # the data set's own name before those with a resolution
    any_data = "folder" if "folder" in known else "default"
    name = near[0] if near and not Path(dataset).expanduser().exists() else any_data
    on_cpu = options.device == "cpu" or (options.device == "auto" and not has_gpu())
    if on_cpu and f"{name}-cpu" in known:
        name = f"{name}-cpu"
    return name, find_recipe(name, options.model)


def _choose_tokenizer(options: TrainOptions, flags: dict[str, Any], kind: str) -> Any:
    """Find the tokenizer of a new prior; where no data set is named, it is the tokenizer's.

    A recipe that the user names is of one resolution, and so is the tokenizer that is looked for.
    """
    asked, dataset = (_asked(options, flags, key) for key in ("prior.tokenizer", "data.dataset"))
    table = read_table(find_recipe(options.recipe, options.model)) if options.recipe is not None else {}
    data = table.get("data")
    resolution = data.get("resolution") if isinstance(data, dict) else None
    found = find_tokenizer(kind, asked, dataset, resolution if isinstance(resolution, int) else None)
    flags["prior.tokenizer"] = str(found.path)
    if dataset is None and found.dataset is not None:
        flags["data.dataset"] = found.dataset
    return found


def _keep_tokenizer(options: TrainOptions, flags: dict[str, Any], table: Mapping[str, Any]) -> None:
    """Let a prior that is resumed have the tokenizer that it began with."""
    if _asked(options, flags, "prior.tokenizer") is not None and options.resume != "auto":
        raise RecipeError(
            "--tokenizer cannot change a run that is resumed; it goes on with the codes that it has learned"
        )
    flags["prior.tokenizer"] = str(table.get("prior", {}).get("tokenizer", ""))


def _asked(options: TrainOptions, flags: Mapping[str, Any], key: str) -> str | None:
    """Return what a flag, a setting or a recipe file of the user's own says of a key, or None.

    Recipes that come with gtool are for any data: the data set that they name is only a default.
    """
    settings = [parse_setting(setting) for setting in options.settings]
    found = [flags.get(key), *(value for path, value in reversed(settings) if ".".join(path) == key)]
    if options.recipe is not None and options.recipe.endswith(".toml"):
        section, _, name = key.partition(".")
        table = read_table(find_recipe(options.recipe, options.model)).get(section)
        found.append(table.get(name) if isinstance(table, dict) else None)
    return next((str(value) for value in found if value is not None), None)


def _with_network_of_weights(
    recipe: Recipe, table: dict[str, Any], settings: tuple[str, ...], flags: Mapping[str, Any], where: str
) -> Recipe:
    """Put the network of the weights that training begins with into a recipe and its table; refuse another."""
    name, words = recipe.train.weights, as_typed(settings, flags).get("train.weights", "train.weights")
    table["model"] = _network_of_weights(recipe, words)
    is_square = "data.resolution" in registry.find_model(recipe.model_name).keys
    if is_square:
        overlay(table, ["data", "resolution"], table["model"]["resolution"])
    recipe = make_recipe(table, settings, where=where, flags=flags)
    if recipe.model != table["model"]:
        other = next(key for key in recipe.model if recipe.model[key] != table["model"].get(key))
        raise RecipeError(f"model.{other}: the network is that of {name}; leave it out")
    if is_square and recipe.data.resolution != table["model"]["resolution"]:
        raise RecipeError(
            f"{words} {name}: of {table['model']['resolution']} px, and a network keeps its size; "
            f"data.resolution = {recipe.data.resolution} needs others"
        )
    has_classes, wants = bool(table["model"].get("classes")), recipe.data.condition == "class"
    if is_square and has_classes != wants:
        do = "add --set data.condition=class" if has_classes else "leave data.condition out"
        raise RecipeError(f"{words} {name}: {'of' if has_classes else 'without'} classes; {do}")
    return recipe


def _network_of_weights(recipe: Recipe, words: str) -> dict[str, Any]:
    """Return the `[model]` table of the weights that training begins with, which replaces the recipe's.

    words: that name the weights, for an error.
    """
    model = recipe.model_name
    row = registry.find_model(model)
    if not (row.finetunes or row.adversarial):
        raise RecipeError(
            f"{words}: {model} cannot begin with weights alone; go on with a whole run by --resume"
        )
    path = find_start(str(recipe.train.weights), model)
    meta, config = read_description(path)
    if meta["model"] != model:
        raise CheckpointError(f"{path}: weights of {meta['model']}, not of {model}")
    return config.model_dump(mode="json", exclude_none=True)


def _configure(recipe: Recipe, made_for: int, path: Path, typed: Mapping[str, str]) -> Any:
    """Build the model's config; stages that were laid out for another resolution are laid out anew."""
    schema = registry.config_class(recipe.model_name)
    config = validate(schema, {"resolution": made_for, **recipe.model}, f"recipe {path}", "model.", typed)
    if config.resolution == recipe.data.resolution:
        return config
    try:
        return config.at_resolution(recipe.data.resolution)
    except ValueError as bad:
        words = typed.get("data.resolution", f"data.resolution = {recipe.data.resolution}")
        raise RecipeError(f"{words}: {first_reason(bad)}") from None


def _check_batches(recipe: Recipe, processes: int) -> None:
    train, loss = recipe.train, recipe.loss
    generated = train.generator_batch_size or train.batch_size
    batches = {"train.batch_size": train.batch_size, "train.generator_batch_size": generated}
    if loss.path_length:
        if generated % loss.path_length_batch_shrink:
            raise RecipeError(
                f"loss.path_length_batch_shrink = {loss.path_length_batch_shrink} does not divide the generator's "
                f"batch of {generated}"
            )
        batches["loss.path_length_batch_shrink: the batch"] = generated // loss.path_length_batch_shrink
    for name, batch in batches.items():
        if batch % processes:
            raise RecipeError(f"{name} = {batch} cannot be divided by {processes} processes")
        share = batch // processes
        if share % min(train.micro_batch or share, share):
            raise RecipeError(
                f"{name} = {batch}: {share} a process is no multiple of train.micro_batch = {train.micro_batch}"
            )


def _check_same_data(original: Recipe, recipe: Recipe, run: RunFolder) -> None:
    """Refuse other data for a run that is resumed, unless those that it began with are no longer where they were."""
    before, now = original.data.dataset, recipe.data.dataset
    if before != now:
        try:
            is_same = find_dataset(before) == find_dataset(now)
        except DataError:
            console.warning(
                f"{run.path}: {before}, which it learned from so far, is gone; it goes on with {now}"
            )
        else:
            if not is_same:
                raise RecipeError(
                    f"{run.path}: learns from {before}, and a resumed run keeps its data; leave out {now}, or start "
                    "a new run"
                )
    kept = recipe.data.model_copy(update={"dataset": before, "cache_gb": original.data.cache_gb})
    if changed := [key for key, value in original.data if getattr(kept, key) != value]:
        raise RecipeError(
            f"{run.path}: a resumed run keeps its data.{changed[0]}; start a new run to change it"
        )


def _check_same_training(original: Recipe, resolved: Recipe, run: RunFolder) -> None:
    if original.model != resolved.model:
        raise RecipeError(f"{run.path}: a resumed run keeps its networks; model cannot change")
    for key in ("seed", "batch_size", "weights"):
        if getattr(original.train, key) != getattr(resolved.train, key):
            raise RecipeError(
                f"{run.path}: a resumed run keeps its train.{key}; start a new run to change it"
            )
