"""Files as the released GANsformer writes them: modules that are pickled with their own source text.

The protocol of its torch_utils/persistence.py, written anew: a persistent module pickles as a call of
`torch_utils.persistence._reconstruct_persistent_obj` with a table of the class, its source and its attributes. The
modules that pickle asks for exist only while a file is written.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# What the release would run when it reads the file: never to be seen.
SOURCE = "import os\nos.mkdir('executed')\n"


class EasyDict(dict):
    """A dictionary whose entries are attributes, too."""


EasyDict.__module__ = "dnnlib.util"


def reconstruct(meta: dict[str, Any]) -> None:
    """Stand where the release would execute the source."""
    raise AssertionError("executed")


reconstruct.__module__ = "torch_utils.persistence"
reconstruct.__name__ = reconstruct.__qualname__ = "_reconstruct_persistent_obj"


class Persistent(nn.Module):
    """A module of the release, as it pickles."""

    def __init__(self, class_name: str) -> None:
        super().__init__()
        self.class_name = class_name
        self._init_args: tuple[Any, ...] = ()
        self._init_kwargs: dict[str, Any] = EasyDict()

    def __reduce__(self):
        meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE,
            "class_name": self.class_name,
            "state": self.__dict__,
        }
        return reconstruct, (meta,), None


def network(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], name: str = "Generator"
) -> Persistent:
    """Return modules nested as the names of the tensors say, built with these arguments."""
    root = Persistent(name)
    for key in ("mapping_kwargs", "synthesis_kwargs"):
        if isinstance(settings.get(key), dict):
            settings = {**settings, key: EasyDict(settings[key])}
    root._init_kwargs = EasyDict(settings)
    for full, tensor in tensors.items():
        *path, last = full.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, Persistent("Layer"))
            module = module._modules[part]
        module.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
        module.register_buffer("resample_kernel", torch.ones(4, 4))
        if "dropout" not in module._modules:
            module.add_module("dropout", nn.Dropout(0.06))  # a class of torch, pickled as torch does
            module.bias_if_any = None
    return root


@contextmanager
def _importable() -> Iterator[None]:
    modules = {name: types.ModuleType(name) for name in ("torch_utils", "dnnlib", "dnnlib.util")}
    modules["torch_utils.persistence"] = types.ModuleType("torch_utils.persistence")
    modules["torch_utils.persistence"].__dict__["_reconstruct_persistent_obj"] = reconstruct
    modules["dnnlib.util"].__dict__["EasyDict"] = EasyDict
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def write(path: Path | str, content: Any, protocol: int | None = None) -> Path:
    """Pickle as the release does: `pickle.dump` of a dictionary of networks."""
    with _importable():
        Path(path).write_bytes(pickle.dumps(content, protocol))
    return Path(path)


def write_zip(path: Path | str, content: Any) -> Path:
    """Pickle with `torch.save`."""
    with _importable():
        torch.save(content, path)
    return Path(path)
