"""Files as Lightning saves them for the released code: tensors beside settings and callbacks of foreign classes.

The classes exist, under the names of the packages that would be needed, only while a file is written.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class DictConfig(dict):
    """Settings: a dictionary of another class, with attributes of its own."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.__dict__["_metadata"] = Metadata()


class Metadata:
    """What settings say of themselves; refers to classes as values."""

    def __init__(self) -> None:
        self.ref_type, self.flags = DictConfig, {"readonly": None}


class ModelCheckpoint:
    """A callback, whose class is a key in the file."""


PLACES = {DictConfig: "omegaconf.dictconfig", Metadata: "omegaconf.base"} | {
    ModelCheckpoint: "pytorch_lightning.callbacks.model_checkpoint"
}


def write(path: Path | str, state: Mapping[str, Tensor], **changes: Any) -> Path:
    """Save tensors as the training of a released model does, with everything that comes along."""
    settings = {"embed_dim": 4, "ddconfig": DictConfig({"ch_mult": [1, 2]})}
    content = {
        "epoch": 3,
        "global_step": 1200,
        "pytorch-lightning_version": "1.0.8",
        "callbacks": {ModelCheckpoint: {"best_model_score": torch.tensor(0.5), "monitor": "val/rec_loss"}},
        "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": []}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": DictConfig(settings),
        "score": np.float64(0.25),
        "state_dict": dict(state),
    } | changes
    names = {part for place in PLACES.values() for part in _parents(place)}
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: types.ModuleType(name) for name in names})
    try:
        for kind, place in PLACES.items():
            kind.__module__ = place
            setattr(sys.modules[place], kind.__name__, kind)
        torch.save(content, path)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return Path(path)


def _parents(place: str) -> list[str]:
    parts = place.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
