"""Arguments of the released GANsformer's generator -> values of our config.

Read for dorarad/gansformer, pytorch_version/training/networks.py (head of 2022-06-14): its files keep the arguments
that each network was built with, and these say what names and shapes of tensors cannot. Defaults are those of the
released classes, which differ from those of its training script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gtool.errors import CheckpointError

SCALARS = (str, int, float, type(None))  # bool is an int

# Arguments whose other values ours has no counterpart of: in the file they must be absent, or one of these.
ONLY: dict[str, dict[str, tuple[Any, ...]]] = {
    "": {"c_dim": (0,), "img_channels": (3,)},
    "mapping_kwargs": {
        "act": ("lrelu",),
        "shared": (False, None),
        "integration": ("add",),
        "norm": (None,),
        "kmeans": (False, None),
    },
    "synthesis_kwargs": {
        "architecture": ("skip", "resnet"),
        "act": ("lrelu",),
        "crop_ratio": (None, 1, 1.0),
        "resample_kernel": ([1, 3, 3, 1],),
        "iterative": (False, None),
        "ltnt_gate": (False, None),
        "pos_type": ("sinus", "trainable2d"),
        "pos_directions_num": (2,),
    },
}


@dataclass(eq=False)
class Other:
    """Stands for a value that no argument that is read here can have; it equals nothing."""

    kind: str


def from_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables of our config as far as the arguments of a released generator decide them.

    Args:
        settings: arguments of the class `Generator`, with those of its two networks under `mapping_kwargs` and
            `synthesis_kwargs`.

    Raises:
        CheckpointError: an argument that ours has no counterpart of.
    """
    mapping, synthesis = (_simple(_table(settings, name)) for name in ("mapping_kwargs", "synthesis_kwargs"))
    settings = _simple(settings)
    for where, table in (("", settings), ("mapping_kwargs", mapping), ("synthesis_kwargs", synthesis)):
        for name, allowed in ONLY[where].items():
            if name in table and table[name] not in allowed:
                _refuse(name, table[name])
    _refuse_unequal(settings, mapping, synthesis)
    norm = synthesis.get("norm") or "none"
    return {
        "mapping": {
            "multiplier": float(mapping.get("lrmul", 0.01)),
            "normalize_global": bool(mapping.get("normalize_global", True)),
        },
        "synthesis": {
            "style": bool(synthesis.get("style", True)),
            "heads": int(synthesis.get("num_heads", 1)),
            "iterations": int(synthesis.get("kmeans_iters", 1)) if synthesis.get("kmeans") else 1,
            "integration": synthesis.get("integration", "add"),
            "norm": "layer" if norm == "batch" else norm,  # as the release does
            "positions": synthesis.get("pos_type", "sinus"),
            "component_positions": bool(synthesis.get("use_pos", False)),
            "gate_pixels": bool(synthesis.get("img_gate", False)),
            "dropout": float(synthesis.get("attention_dropout", 0.12)),
        },
    }


def _refuse_unequal(
    settings: Mapping[str, Any], mapping: Mapping[str, Any], synthesis: Mapping[str, Any]
) -> None:
    """Ours has one value where the release has two."""
    if settings.get("z_dim") != settings.get("w_dim"):
        _refuse("z_dim", settings.get("z_dim"))
    if mapping.get("layer_dim") not in (None, settings.get("w_dim")):
        _refuse("layer_dim", mapping["layer_dim"])
    # With several heads the release gives the first ones content alone and the last ones position alone.
    if synthesis.get("kmeans") and synthesis.get("num_heads", 1) != 1:
        _refuse("num_heads", synthesis["num_heads"])
    if not mapping.get("ltnt2ltnt"):
        return
    if mapping.get("ltnt_gate"):
        _refuse("ltnt_gate", True)
    for name, default in (("use_pos", False), ("num_heads", 1)):
        if mapping.get(name, default) != synthesis.get(name, default):
            _refuse(name, mapping.get(name, default))


def _table(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = settings.get(name, {})
    if not isinstance(table, dict):
        raise CheckpointError(f"no GANsformer: `{name}` is no table")
    return table


def _simple(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table with `Other` in place of each value that is neither a scalar nor a short list of scalars.

    Comparing or printing the others could take as long as whoever wrote the file likes.
    """
    return {
        name: value if _is_simple(value) else Other(type(value).__name__) for name, value in table.items()
    }


def _is_simple(value: Any) -> bool:
    parts = value if isinstance(value, list) and len(value) <= 8 else [value]
    return all(isinstance(part, SCALARS) for part in parts)


def _refuse(name: str, value: Any) -> None:
    shown = value.kind if isinstance(value, Other) else str(value)[:40]
    raise CheckpointError(f"a GANsformer built with {name} = {shown!r}, which this gtool does not build")
