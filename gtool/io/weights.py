"""The only reader and writer of weights and resume states.

Everything is written under a temporary name, flushed to the disk and renamed. Nothing is ever pickled; foreign pickles
are read by safe_pickle.py.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gtool.errors import CheckpointError
from gtool.io.files import atomic_write, flush, usual_mode
from gtool.io.run_folder import FORMAT, METADATA_KEY, read_header, read_meta
from gtool.reading import parse_json, read_bytes, reading


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the metadata that says what they are."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def save_weights(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and their description to one safetensors file, atomically; CheckpointError where that fails."""
    described = {METADATA_KEY: json.dumps({"format": FORMAT, **meta}, sort_keys=True, allow_nan=False)}
    with atomic_write(path) as temporary:
        try:
            save_file(_plain(tensors), temporary, metadata=described)
        except SafetensorError as bad:
            raise CheckpointError(f"{path}: cannot be written: {bad}") from None


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def load_weights(path: Path) -> Weights:
    """Read and check a weights file of gtool.

    Raises:
        CheckpointError: missing, a pickle, truncated, forged, without our metadata, of another format, not finite.
    """
    return Weights(read_safetensors(path), read_meta(path))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of any safetensors file, each in memory of its own.

    The file is mapped, and tensors in it lie at any multiple of their item's size. MKL's products depend on the
    alignment of memory, so a network that kept such tensors would not repeat the bits of the one that was saved.

    Raises:
        CheckpointError: missing, damaged, not finite.
    """
    read_header(path)
    with reading(path, "safetensors file", CheckpointError), safe_open(path, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118 - no mapping
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: tensor `{name}` holds values that are not finite")
    return tensors


def restore(module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Copy tensors into a module whose names and shapes must be exactly theirs; CheckpointError as `require_fit`."""
    require_fit(module, tensors, where)
    module.load_state_dict(dict(tensors))


def require_fit(module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Compare names, shapes and kinds of number, for a module that may have no memory yet.

    Raises:
        CheckpointError: a name is missing or unknown, or a shape or kind of number differs.
    """
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{where}: not the weights of this model: {len(missing)} tensors missing, {len(unknown)} unknown, "
            f"the first `{(missing + unknown)[0]}`"
        )
    for name, tensor in own.items():
        given = tensors[name]
        if given.shape != tensor.shape or given.is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(
                f"{where}: tensor `{name}` is {given.dtype} {tuple(given.shape)}, this model has "
                f"{tensor.dtype} {tuple(tensor.shape)}"
            )


def save_state(path: Path, tensors: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]) -> None:
    """Write a resume state: `<name>.safetensors` for each group of tensors and state.json, as one renamed folder.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, group in tensors.items():
            file = temporary / f"{name}.safetensors"
            with usual_mode(file):
                save_file(_plain(group), file)
        state = json.dumps({"format": FORMAT, **info}, indent=1)
        (temporary / "state.json").write_text(state, encoding="utf-8")
        for written in temporary.iterdir():
            flush(written)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        flush(path.parent)
    except (OSError, SafetensorError) as bad:
        raise CheckpointError(f"{path}: cannot be written: {bad}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_state(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return the tensors and the information of a resume state; CheckpointError: missing, damaged, another format."""
    with reading(path / "state.json", "state", CheckpointError):
        info = parse_json(read_bytes(path / "state.json"))
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
    return {file.stem: read_safetensors(file) for file in sorted(path.glob("*.safetensors"))}, info
