"""The tensors of a weights file in any of the forms that networks of metrics are published in; no code of it is run."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from gtool.errors import CheckpointError
from gtool.io.weights import load_pickled, read_safetensors


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Return what a TorchScript archive, a pickled state dict or a safetensors file holds, by its contents.

    Raises:
        CheckpointError: missing, unreadable, or none of the three.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    return _scripted(path) if _is_script(path) else load_pickled(path)


def _is_script(path: Path) -> bool:
    """Say whether a file is a TorchScript archive, which shares its suffixes with pickles."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _scripted(path: Path) -> Mapping[str, Tensor]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch.jit is on its way out; the files are older
            warnings.simplefilter("ignore", DeprecationWarning)
            return dict(torch.jit.load(path, map_location="cpu").state_dict())  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as bad:
        reason = str(bad).strip().splitlines()[0]
        raise CheckpointError(f"{path}: not a readable TorchScript file: {reason}") from None
