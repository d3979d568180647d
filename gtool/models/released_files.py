"""Checkpoints of the original code of any model: which network of a file is read, and what is refused."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtool.errors import CheckpointError
from gtool.io.safe_pickle import load_pickled
from gtool.models import registry
from gtool.models.trained import Trained

Tensors = dict[str, Tensor]
Rules = list[tuple[str, str | None]]  # pattern of a whole name -> our name with its groups; None: never read
# What training scripts call the network in their checkpoints, the best first.
NETWORKS = ("avg_gen_state_dict", "gen_state_dict")


def read_released(path: Path, model: str) -> tuple[Trained, str]:
    """Return the network of a released file, which nothing is executed of, under our names, and what of it was read.

    model: a name of the registry, or a project whose files are of several models.
    """
    with _named(path):
        if model in registry.PROJECTS:
            model = _model_of_project(path, registry.PROJECTS[model])
        importer = registry.released_module(model)
        if hasattr(importer, "read_file"):  # its files hold more than tensors
            chosen, config, tensors = importer.read_file(path)
        else:
            chosen, named = _choose_network(path)
            config, tensors = importer.rename_released(named)
    return Trained(path, model, config, tensors, {}), chosen


def rename(tensors: Mapping[str, Tensor], rules: Rules, what: str) -> Tensors:
    """Give every tensor the name that the first fitting rule has for it.

    Raises:
        CheckpointError: a name that no rule fits; begins with `what`.
    """
    compiled = [(re.compile(pattern), ours) for pattern, ours in rules]
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        fitting = ((found, ours) for pattern, ours in compiled if (found := pattern.fullmatch(name)))
        found, ours = next(fitting, (None, None))
        if found is None:
            raise CheckpointError(f"{what}: `{name}` is unknown")
        if ours is not None:
            renamed[found.expand(ours)] = tensor
    return renamed


def numbers(names: Iterable[str], pattern: str) -> set[int]:
    """Return the numbers that names have where the pattern, which begins at their beginning, has its group."""
    return {int(found[1]) for name in names if (found := re.match(pattern, name))}


def check_finite(network: Any) -> None:
    """Use a network, and the tokenizer in it; CheckpointError where it makes values that are not finite."""
    for part in (network, getattr(network, "tokenizer", None)):
        if part is None:
            continue
        with torch.inference_mode():
            made = part(*part.example_inputs())
        values = [made] if isinstance(made, Tensor) else made
        if not all(bool(value.isfinite().all()) for value in values):
            raise CheckpointError("the network makes values that are not finite; nothing was written")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the name of a file before what is wrong with it."""
    try:
        yield
    except CheckpointError as bad:
        text = str(bad)
        raise CheckpointError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from None


def _model_of_project(path: Path, models: tuple[str, ...]) -> str:
    """Return which of the models a file is of: the first whose reader knows the names in it, or the last."""
    for model in models[:-1]:
        importer = registry.released_module(model)
        if importer.is_of_this_model(importer.read_state(path)[1]):
            return model
    return models[-1]


def _choose_network(path: Path) -> tuple[str, Tensors]:
    """Read a checkpoint of named tensors: the averaged generator in it, the trained one, or the file itself."""
    loaded = load_pickled(path)
    chosen = next((name for name in NETWORKS if name in loaded), "the whole file")
    tensors = loaded.get(chosen, loaded)
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise CheckpointError(f"holds no network; looked for {' and '.join(NETWORKS)}")
    # The original code saves the wrapper that torch puts around a network for several GPUs.
    return chosen, {str(name).removeprefix("module."): value for name, value in tensors.items()}
