"""What a prior needs before it can be planned: the tokenizer whose codes it learns, found without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtool import console
from gtool.config.recipe import find_recipe, parse_setting, read_table, validate
from gtool.errors import CheckpointError, RecipeError
from gtool.io.run_folder import RunFolder, find_weights, read_meta, runs_of
from gtool.models import registry
from gtool.train.options import Request

TOKENIZER = "vqgan"
PREFIX = "tokenizer."  # of its tensors in weights of a prior


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer's weights file and what it says of itself."""

    path: Path
    config: Mapping[str, Any]  # its [model] table
    dataset: str | None  # that it was trained on, where that is known
    resolution: int


def with_tokenizer(request: Request, run: RunFolder | None) -> tuple[Request, Tokenizer]:
    """Find the tokenizer that a command line means, and take the data set from it where none is named.

    Raises:
        RecipeError: weights of another kind of model; says which are needed and where the newest are.
        CheckpointError: no tokenizer of this data set has been trained.
    """
    asked = _asked(request, "prior.tokenizer")
    dataset = _asked(request, "data.dataset")
    if run is not None:
        if asked is not None and request.resume != "auto":
            raise RecipeError(
                "--tokenizer cannot change a run that is resumed; it goes on with the codes that it has learned"
            )
        found = _of_run(run)
    elif asked is not None:
        found = read_tokenizer(find_weights(str(asked)))
        if dataset is not None and found.dataset not in (None, dataset):
            console.warning(f"{found.path}: a tokenizer trained on {found.dataset}; it is used for {dataset}")
    else:
        found = _newest(None if dataset is None else str(dataset))
    flags = dict(request.flags)
    if run is None and dataset is None and found.dataset is not None:
        flags["data.dataset"] = found.dataset
    flags["prior.tokenizer"] = str(found.path)
    return replace(request, flags=flags), found


def _asked(request: Request, key: str) -> Any:
    """Return what flag, setting or a recipe file of the user's own says of a key, or None.

    Recipes that come with gtool are for any data: the set that they name is only where they would begin.
    """
    if key in request.flags:
        return request.flags[key]
    for setting in reversed(request.settings):
        path, value = parse_setting(setting)
        if ".".join(path) == key:
            return value
    if request.recipe is None or not request.recipe.endswith(".toml"):
        return None
    section, _, name = key.partition(".")
    table = read_table(find_recipe(request.recipe, request.model)).get(section)
    return table.get(name) if isinstance(table, dict) else None


def _of_run(run: RunFolder) -> Tokenizer:
    """Return the tokenizer of a run that is resumed: its own weights hold it, should the first file be another now."""
    table = read_table(run.recipe)
    path = Path(str(table.get("prior", {}).get("tokenizer", "")))
    if not run.weights():
        return read_tokenizer(path)
    own = run.weights()[-1]
    if not path.is_file():
        return read_tokenizer(own)
    if _is_held(path, own):
        return read_tokenizer(path)
    console.warning(f"{path}: not what it was when {run.path} began; the tokenizer in {own.name} is used")
    return read_tokenizer(own)


def _is_held(path: Path, own: Path) -> bool:
    """Whether a file of a tokenizer, or of a prior with one, has the tensors of the tokenizer in weights of a prior."""
    import numpy as np
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as theirs, safe_open(own, framework="np") as ours:
            names, held = set(theirs.keys()), [name for name in ours.keys() if name.startswith(PREFIX)]  # noqa: SIM118
            prefix = "" if names.isdisjoint(held) else PREFIX
            return all(
                prefix + name.removeprefix(PREFIX) in names
                and np.array_equal(
                    ours.get_tensor(name), theirs.get_tensor(prefix + name.removeprefix(PREFIX))
                )
                for name in held
            )
    except (SafetensorError, OSError):
        return False


def read_tokenizer(path: Path) -> Tokenizer:
    """Read what the weights file of a tokenizer, or of a prior that holds one, says of itself.

    Raises:
        RecipeError: weights of another model.
        CheckpointError: not a weights file of gtool.
    """
    meta = read_meta(path)
    config, recipe = meta.get("config"), meta.get("recipe")
    if meta.get("model") == "prior" and isinstance(config, dict):
        config = config.get("tokenizer")
    elif meta.get("model") != TOKENIZER:
        raise RecipeError(
            f"{path}: weights of {meta.get('model')}; a prior learns the codes of a tokenizer: "
            f"{_newest_hint()}"
        )
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: its description lacks a config")
    schema = registry.config_class(TOKENIZER)
    checked = validate(schema, config, str(path), "config.")
    data = recipe.get("data", {}) if isinstance(recipe, dict) else {}
    return Tokenizer(path.resolve(), config, data.get("dataset"), checked.resolution)


def _newest(dataset: str | None) -> Tokenizer:
    """Return the newest tokenizer in ./runs, of a data set where one is named."""
    others: list[Tokenizer] = []
    for run in runs_of(TOKENIZER):
        found = read_tokenizer(run.weights()[-1])
        if dataset is None or found.dataset == dataset:
            return found
        others.append(found)
    if dataset is None or not others:
        learn = f" --dataset {dataset}" if dataset not in (None, "scenes") else ""
        raise CheckpointError(
            "no trained tokenizer in ./runs, and a prior learns the codes of one; train it first: "
            f"`gtool train vqgan{learn}`, or name one by --tokenizer"
        )
    raise CheckpointError(
        f"no tokenizer of {dataset} in ./runs; the newest, {others[0].path.parent.name}, is of {others[0].dataset}: "
        f"`gtool train vqgan --dataset {dataset}` trains one, --tokenizer {others[0].path.parent.name} takes that one"
    )


def _newest_hint() -> str:
    runs = runs_of(TOKENIZER)
    return f"the newest is {runs[0].path}" if runs else "train one by `gtool train vqgan`"
