"""Tensors of the released PyTorch GANsformer -> our names and the config that their names and shapes imply.

Read for dorarad/gansformer, pytorch_version/training/networks.py (head of 2022-06-14). Dropped, because nothing in the
released forward passes reads them: keys and latent positions of the centroid layers, constant noise, the running mean
of w, and all that styles feed on where styles are off.

A released file is a pickle of the networks themselves, which is read as data (gtool/io/safe_pickle.py). It holds the
arguments that they were built with, and these decide what tensors do not show. Tensors that come without them are
taken for those of the released training script: one head, integration by multiplication (where the modulation has as
many outputs as channels), layer normalisation, waves of the kind `sinus`, one iteration of k-means, and styles that
are off exactly where the local components do not attend to each other (CLEVR).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from gtool.errors import CheckpointError
from gtool.io.safe_pickle import Name, Record, plain, read_pickle
from gtool.models.gansformer.config import GANsformerConfig
from gtool.models.released_files import Rules, Tensors, numbers, rename

# Inside an attention layer, theirs -> ours.
IN_ATTENTION = {
    "to_queries": "query",
    "to_keys": "key",
    "to_values": "value",
    "from_pos_map": "query_position",
    "to_pos_map": "key_position",
    "modulation": "modulation",
    "from_gate_attention.gate": "pixel_gate",
    "from_gate_attention.gate_pos": "pixel_gate_position",
}
NEVER_READ = ("resample_kernel", "noise_const", "w_avg", "pos0")
PARTS = ("_parameters", "_buffers", "_modules")  # of a pickled module
NETWORKS = ("Gs", "G_ema", "G")  # in a released file, the best first
PERSISTENT = Name("torch_utils.persistence", "_reconstruct_persistent_obj")
DEEPEST, MOST_PARTS = 12, 20_000  # of a released network: 6, and about 1,000 modules and tensors


def read_file(path: Path) -> tuple[str, GANsformerConfig, Tensors]:
    """Return which network of a released file was read, its config, and its tensors by our names.

    Raises:
        CheckpointError: unreadable, or no GANsformer of the PyTorch release.
    """
    loaded = plain(read_pickle(path))
    if isinstance(loaded, dict) and loaded and all(isinstance(x, Tensor) for x in loaded.values()):
        return "the whole file", *rename_released(loaded)
    chosen, generator = _choose(loaded)
    state = _state(generator)
    settings = plain(state.get("_init_kwargs"))  # not every class kept them
    if not isinstance(settings, dict):
        return chosen, *rename_released(_collect(state))
    settings = {name: plain(value) for name, value in settings.items()}
    return chosen, *rename_released(_collect(state), settings)


def _choose(loaded: Any) -> tuple[str, Any]:
    records = [loaded, *(loaded if isinstance(loaded, tuple) else ())]
    if any(_is_of_tensorflow(record) for record in records):
        raise CheckpointError(
            "networks of TensorFlow; convert them with loader.py of the release's pytorch_version first"
        )
    found = [name for name in NETWORKS if isinstance(loaded, dict) and isinstance(loaded.get(name), Record)]
    if not found:
        raise CheckpointError(f"holds no network; looked for {', '.join(NETWORKS)}")
    return found[0], loaded[found[0]]


def _is_of_tensorflow(value: Any) -> bool:
    named = isinstance(value, Record) and isinstance(value.what, Name)
    return named and value.what.module.startswith("dnnlib.tflib")


def _state(module: Any) -> dict[str, Any]:
    """Return the attributes of a pickled module: one that carries its source, or one of torch."""
    if isinstance(module, Record) and module.what == PERSISTENT:
        about = module.arguments[0] if module.arguments else None
        state = plain(about.get("state")) if isinstance(about, dict) else None
    else:
        state = plain(module.state) if isinstance(module, Record) else None
    if not isinstance(state, dict) or not all(isinstance(plain(state.get(part)), dict) for part in PARTS):
        raise CheckpointError("holds no network of the PyTorch release")
    return state


def _collect(network: dict[str, Any]) -> Tensors:
    """Return the parameters and buffers of a module and of those in it, by their full names.

    Modules may hold each other, or share others at every level: what is looked at is counted as often as it is.
    """
    tensors: Tensors = {}
    looked_at = 0
    waiting = [(network, "", DEEPEST)]
    while waiting:
        state, prefix, depth = waiting.pop()
        parameters, buffers, modules = (plain(state[part]) for part in PARTS)
        looked_at += 1 + len(parameters) + len(buffers) + len(modules)
        if depth == 0 or looked_at > MOST_PARTS:
            raise CheckpointError("holds no network of the PyTorch release: its modules have no end")
        for name, value in (parameters | buffers).items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}{_checked_name(name)}"] = value
        for name, module in modules.items():
            if module is not None:
                waiting.append((_state(module), f"{prefix}{_checked_name(name)}.", depth - 1))
    return tensors


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"\w{1,100}", name):
        raise CheckpointError("holds no network of the PyTorch release: names in it are no names")
    return name


def rename_released(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None
) -> tuple[GANsformerConfig, Tensors]:
    """Return the config and the tensors of a released generator by our names.

    Args:
        tensors: its parameters and buffers.
        settings: the arguments that it was built with, where they are known.

    Raises:
        CheckpointError: the tensors are not those of a GANsformer generator, or of one that ours cannot be.
    """
    config = _read_config(tensors, settings)
    try:
        renamed = rename(tensors, _rules(config), "no GANsformer generator")
        for name, value in renamed.items():
            if name.endswith("centroids"):
                renamed[name] = value.squeeze(0)
            elif name.endswith("grid.places"):
                renamed[name] = value.flatten(0, -2)
    except (ValueError, IndexError, RuntimeError):
        raise CheckpointError("no GANsformer generator: names or shapes of its tensors are others") from None
    return config, renamed


def _read_config(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> GANsformerConfig:
    """Return what the arguments of a released generator say, and names and shapes of its tensors."""
    try:
        values = _from_tensors(tensors)
        decided = {} if settings is None else _from_settings(settings)
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError):
        raise CheckpointError("no GANsformer generator: tensors are missing, or have other shapes") from None
    for table, entries in decided.items():
        values[table] |= entries
    try:
        return GANsformerConfig(**values)
    except ValidationError as bad:
        raise CheckpointError(f"a GANsformer that cannot be built: {bad.errors()[0]['msg']}") from None


def _from_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    sides = sorted(numbers(tensors, r"synthesis\.b(\d+)\.conv1\.weight"))
    if not sides or sides[0] != 4 or "mapping.global_mlp.out_layer.weight" not in tensors:
        raise CheckpointError(
            "no GANsformer generator: `synthesis.b4.conv1.weight` or its mapping is missing"
        )
    last = f"synthesis.b{sides[-1]}"
    attended = [side for side in sides if f"synthesis.b{side}.conv1.transformer.to_queries.weight" in tensors]
    channels = {side: tensors[f"synthesis.b{side}.conv1.weight"].shape[0] for side in sides}
    most = max(channels.values())
    narrow = [side for side in sides if channels[side] < most]
    residual = "mapping.global_mlp.l0.fc0.weight" in tensors
    layers = len(numbers(tensors, r"mapping\.global_mlp\.l(\d+)\."))
    values: dict[str, Any] = {
        "resolution": sides[-1],
        "attention": "none",
        "components": 1,
        "component_dim": tensors["mapping.global_mlp.out_layer.weight"].shape[0],
        "mapping": {
            "layers": 2 * layers if residual else layers,
            "residual": residual,
            "self_attention": "mapping.mlp.sa0.to_queries.weight" in tensors,
        },
        "synthesis": {
            "channel_max": most,
            "channel_base": channels[narrow[0]] * narrow[0] if narrow else most * sides[-1],
            "architecture": "resnet" if f"{last}.skip.weight" in tensors else "skip",
            "stem": "constant" if "synthesis.b4.const" in tensors else "latent",
            "noise": f"{last}.conv1.noise_strength" in tensors,
        },
    }
    if attended:
        _read_attention(tensors, values, attended, channels[attended[0]])
    return values


def _read_attention(
    tensors: Mapping[str, Tensor], values: dict[str, Any], attended: list[int], channels: int
) -> None:
    first = f"synthesis.b{attended[0]}.conv1.transformer"
    centroids, positions = tensors.get(f"{first}.centroids"), tensors.get("pos")
    if centroids is None and positions is None:
        raise CheckpointError("a GANsformer whose number of components is not in the file: `pos` is missing")
    values["attention"] = "simplex" if centroids is None else "centroid"
    values["components"] = (
        positions.shape[0] if positions is not None else tensors[f"{first}.centroids"].shape[2]
    )
    both = tensors[f"{first}.modulation.weight"].shape[0] == 2 * channels
    values["synthesis"] |= {
        "start": attended[0],
        "end": attended[-1],
        "integration": "both" if both else "mul",
        "position_dim": tensors[f"{first}.from_pos_map.weight"].shape[1],
        "style": values["mapping"]["self_attention"],
    }


def _rules(config: GANsformerConfig) -> Rules:
    """Return patterns of their names with ours, or None for what nothing reads."""
    synthesis = config.synthesis
    reads_positions = config.mapping.self_attention or config.attention == "simplex"
    of_positions: tuple[str, ...] = () if synthesis.component_positions else ("key_position",)
    rules: Rules = [
        (rf"(?:.+\.)?(?:{'|'.join(NEVER_READ)})", None),
        ("pos", "component_positions" if reads_positions and synthesis.component_positions else None),
    ]
    if not synthesis.style:
        rules += [(r".+\.affine\..+", None), (r"mapping\.global_mlp\..+", None)]
    for theirs, ours in (("global_mlp", "mapping_network.unique"), ("mlp", "mapping_network.shared")):
        theirs = rf"mapping\.{theirs}\."
        dead = (*of_positions, "query_position") if of_positions else ()
        rules += [
            (theirs + r"out_layer\.(\w+)", ours + r".output.\1"),
            (theirs + r"l(\d+)\.fc1\.(\w+)", ours + r".blocks.\1.second.\2"),
            (theirs + r"l(\d+)\.(?:fc0\.)?(\w+)", ours + r".blocks.\1.first.\2"),
            *_attention_rules(theirs + r"sa(\d+)\.", ours + r".blocks.\1", dead),
        ]
    for number, side in enumerate(config.sides):
        theirs, ours = rf"synthesis\.b{side}\.", f"blocks.{number}"
        rules += [
            (theirs + "const", f"{ours}.constant"),
            (theirs + r"torgb\.biasAct\.bias", f"{ours}.to_rgb.bias"),
            (theirs + r"torgb\.(.+)", rf"{ours}.to_rgb.conv.\1"),
            (theirs + r"conv_(stem|last)\.(.+)", rf"{ours}.\1.\2"),
            (theirs + r"skip\.(.+)", rf"{ours}.skip.\1"),
        ]
        for layer, place in ((theirs + r"conv0\.", f"{ours}.up"), (theirs + r"conv1\.", f"{ours}.layer")):
            learned_places = f"{place}.grid.places" if synthesis.positions == "trainable2d" else None
            dead = ("key", "key_position") if config.attention == "centroid" else of_positions
            rules += [
                (layer + r"biasAct\.bias", f"{place}.bias"),
                (layer + "noise_strength", f"{place}.noise_strength"),
                (layer + "grid_pos", learned_places),
                (layer + r"transformer\.centroids", f"{place}.attention.centroids"),
                (layer + r"transformer\.att_weight", f"{place}.attention.centroid_scale"),
                (layer + r"(?!transformer)(.+)", rf"{place}.conv.\1"),
                *_attention_rules(layer + r"transformer\.", place, dead),
            ]
    return rules


def _attention_rules(theirs: str, ours: str, dead: tuple[str, ...]) -> Rules:
    return [
        (
            rf"{theirs}{re.escape(part)}\.(?P<kind>\w+)",
            None if name in dead else rf"{ours}.attention.{name}.\g<kind>",
        )
        for part, name in IN_ATTENTION.items()
    ]


# Arguments that a network was built with -> values of our config. Defaults are those of the released classes, which
# differ from those of its training script.

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


def _from_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables of our config as far as the arguments of a released generator decide them.

    Args:
        settings: arguments of the class `Generator`, with those of its two networks under `mapping_kwargs` and
            `synthesis_kwargs`.

    Raises:
        CheckpointError: an argument that ours has no counterpart of.
    """
    tables = {"": settings}
    for name in ("mapping_kwargs", "synthesis_kwargs"):
        tables[name] = settings.get(name, {})
        if not isinstance(tables[name], dict):
            raise CheckpointError(f"no GANsformer: `{name}` is no table")
    tables = {name: _simple(table) for name, table in tables.items()}
    for where, table in tables.items():
        for name, allowed in ONLY[where].items():
            if name in table and table[name] not in allowed:
                _refuse(name, table[name])
    settings, mapping, synthesis = tables.values()
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


def _simple(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table with `Other` in place of each value that is neither a scalar nor a short list of scalars.

    Comparing or printing the others could take as long as whoever wrote the file likes.
    """
    simple: dict[str, Any] = {}
    for name, value in table.items():
        parts = value if isinstance(value, list) and len(value) <= 8 else [value]
        is_simple = all(isinstance(part, SCALARS) for part in parts)
        simple[name] = value if is_simple else Other(type(value).__name__)
    return simple


def _refuse(name: str, value: Any) -> None:
    shown = value.kind if isinstance(value, Other) else str(value)[:40]
    raise CheckpointError(f"a GANsformer built with {name} = {shown!r}, which this gtool does not build")
