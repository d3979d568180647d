"""Which tokenizer a prior learns the codes of: found before anything is planned, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtool import console
from gtool.errors import CheckpointError, RecipeError
from gtool.io.run_folder import find_weights, runs_of
from gtool.models import registry
from gtool.models.description import read_description

PREFIX = "tokenizer."  # of its tensors in weights of a prior


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer's weights file and what it says of itself."""

    path: Path
    config: Mapping[str, Any]  # its [model] table
    dataset: str | None  # that it was trained on, where that is known
    resolution: int


def find_tokenizer(
    kind: str, asked: str | None, dataset: str | None, resolution: int | None
) -> TokenizerFile:
    """Find the tokenizer of a new run: a run, a file or a hub id that the user named, or the newest that fits.

    dataset, resolution: what the newest has to be of, where they are given.

    Raises:
        RecipeError: weights of another kind of model; says which are needed and where the newest are.
        CheckpointError: no tokenizer of this data set or resolution has been trained.
    """
    if asked is None:
        return _newest(kind, dataset, resolution)
    found = read_tokenizer(kind, find_weights(asked))
    if dataset is not None and found.dataset not in (None, dataset):
        console.warning(f"{found.path}: a tokenizer trained on {found.dataset}; it is used for {dataset}")
    return found


def read_tokenizer(kind: str, path: Path) -> TokenizerFile:
    """Read what the weights file of a tokenizer, or of a prior that holds one, says of itself.

    Raises:
        RecipeError: weights of another model.
        CheckpointError: not a weights file of gtool.
    """
    meta, checked = read_description(path)
    model, config = meta["model"], meta["config"]
    if registry.find_model(model).learns_from == kind:
        config, checked = config["tokenizer"], checked.tokenizer
    elif model != kind:
        runs = runs_of(kind)
        hint = f"the newest is {runs[0].path}" if runs else f"train one by `gtool train {kind}`"
        raise RecipeError(f"{path}: weights of {model}; a prior learns the codes of a tokenizer: {hint}")
    dataset = meta.get("recipe", {}).get("data", {}).get("dataset")
    return TokenizerFile(path.resolve(), config, dataset, checked.resolution)


def _newest(kind: str, dataset: str | None, resolution: int | None) -> TokenizerFile:
    """Return the newest tokenizer in ./runs, of a data set and a resolution where they are given."""
    others: list[TokenizerFile] = []
    for run in runs_of(kind):
        found = read_tokenizer(kind, run.weights()[-1])
        if dataset in (None, found.dataset) and resolution in (None, found.resolution):
            return found
        others.append(found)
    learn = f"gtool train {kind}"
    if dataset not in (None, "scenes"):
        learn += f" --dataset {dataset}"
    if resolution is not None:
        learn += f" --set data.resolution={resolution}"
    if not others:
        raise CheckpointError(
            "no trained tokenizer in ./runs, and a prior learns the codes of one; train it first: "
            f"`{learn}`, or name one by --tokenizer"
        )
    newest, name = others[0], others[0].path.parent.name
    of = "" if dataset is None else f" of {dataset}"
    at = "" if resolution is None else f" at {resolution} px"
    raise CheckpointError(
        f"no tokenizer{of}{at} in ./runs; the newest, {name}, is of {newest.dataset} at {newest.resolution} px: "
        f"`{learn}` trains one, --tokenizer {name} takes that one"
    )
