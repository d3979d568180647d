"""Tensors of the released PyTorch GANsformer -> our names and the config that their names and shapes imply.

Read for dorarad/gansformer, pytorch_version/training/networks.py (head of 2022-06-14). Dropped, because nothing in the
released forward passes reads them: keys and latent positions of the centroid layers, constant noise, the running mean
of w, and all that styles feed on where styles are off.

Not in the tensors, and taken from the released defaults: one head, integration by multiplication (where the
modulation has as many outputs as channels), layer normalisation, waves of the kind `sinus`, no gates, and styles
that are off exactly where the local components do not attend to each other (CLEVR); more than one iteration of
k-means leaves no trace and is taken for one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gtool.errors import CheckpointError
from gtool.models.gansformer_config import GANsformerConfig

Tensors = dict[str, Tensor]

# Inside an attention layer, theirs -> ours.
IN_ATTENTION = {
    "to_queries": "query",
    "to_keys": "key",
    "to_values": "value",
    "from_pos_map": "query_position",
    "to_pos_map": "key_position",
    "modulation": "modulation",
}
NEVER_READ = ("resample_kernel", "noise_const", "w_avg", "grid_pos")


def rename_released(tensors: Mapping[str, Tensor]) -> tuple[GANsformerConfig, Tensors]:
    """Return the config and the tensors of a released generator by our names.

    Raises:
        CheckpointError: the tensors are not those of a GANsformer generator.
    """
    config = read_config(tensors)
    return config, _generator(tensors, config)


def rename_discriminator(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return the tensors of a released discriminator by our names."""
    sides = sorted(
        {int(found[1]) for name in tensors if (found := re.match(r"b(\d+)\.", name))}, reverse=True
    )
    renamed = {}
    rules = [(rf"b{sides[0]}\.fromrgb\.", "from_rgb."), (r"b4\.conv\.", "conv."), (r"b4\.fc\.", "hidden.")]
    rules.append((r"b4\.out\.", "logit."))
    for place, side in enumerate(sides[:-1]):
        for theirs, ours in (("conv0", "first"), ("conv1", "second"), ("skip", "skip")):
            rules.append((rf"b{side}\.{theirs}\.", f"blocks.{place}.{ours}."))
    for name, value in tensors.items():
        if name.rpartition(".")[2] in NEVER_READ:
            continue
        renamed[_apply(rules, name).replace("biasAct.bias", "bias")] = value
    return renamed


def _apply(rules: list[tuple[str, str]], name: str) -> str:
    for pattern, replacement in rules:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    raise CheckpointError(f"no GANsformer: `{name}` is unknown")


def read_config(tensors: Mapping[str, Tensor]) -> GANsformerConfig:
    """Return what the names and shapes of a released generator's tensors say.

    Raises:
        CheckpointError: they are not those of a GANsformer generator.
    """
    sides = sorted(
        {int(found[1]) for name in tensors if (found := re.match(r"synthesis\.b(\d+)\.conv1\.weight", name))}
    )
    if not sides or sides[0] != 4 or "mapping.global_mlp.out_layer.weight" not in tensors:
        raise CheckpointError(
            "no GANsformer generator: `synthesis.b4.conv1.weight` or its mapping is missing"
        )
    last = f"synthesis.b{sides[-1]}"
    attended = [side for side in sides if f"synthesis.b{side}.conv1.transformer.to_queries.weight" in tensors]
    channels = {side: tensors[f"synthesis.b{side}.conv1.weight"].shape[0] for side in sides}
    most = max(channels.values())
    narrow = [side for side in sides if channels[side] < most]
    width = tensors["mapping.global_mlp.out_layer.weight"].shape[0]
    values: dict[str, Any] = {
        "resolution": sides[-1],
        "component_dim": width,
        "mapping": {
            "layers": _mapping_layers(tensors),
            "residual": "mapping.global_mlp.l0.fc0.weight" in tensors,
            "self_attention": "mapping.mlp.sa0.to_queries.weight" in tensors,
        },
    }
    synthesis: dict[str, Any] = {
        "channel_max": most,
        "channel_base": channels[narrow[0]] * narrow[0] if narrow else most * sides[-1],
        "architecture": "resnet" if f"{last}.skip.weight" in tensors else "skip",
        "stem": "constant" if "synthesis.b4.const" in tensors else "latent",
        "noise": f"{last}.conv1.noise_strength" in tensors,
    }
    if not attended:
        return _checked({**values, "attention": "none", "components": 1, "synthesis": synthesis})
    first = f"synthesis.b{attended[0]}.conv1.transformer"
    centroids = tensors.get(f"{first}.centroids")
    positions = tensors.get("pos")
    if centroids is not None:
        components = centroids.shape[2]
    elif positions is not None:
        components = positions.shape[0]
    else:
        raise CheckpointError("a GANsformer whose number of components is not in the file: `pos` is missing")
    both = tensors[f"{first}.modulation.weight"].shape[0] == 2 * channels[attended[0]]
    synthesis |= {
        "start": attended[0],
        "end": attended[-1],
        "integration": "both" if both else "mul",
        "position_dim": tensors[f"{first}.from_pos_map.weight"].shape[1],
    }
    synthesis["style"] = values["mapping"]["self_attention"]
    kind = "simplex" if centroids is None else "centroid"
    return _checked({**values, "attention": kind, "components": components, "synthesis": synthesis})


def _mapping_layers(tensors: Mapping[str, Tensor]) -> int:
    blocks = {name.split(".")[2] for name in tensors if re.match(r"mapping\.global_mlp\.l\d+\.", name)}
    return len(blocks) * (2 if "mapping.global_mlp.l0.fc0.weight" in tensors else 1)


def _checked(values: dict[str, Any]) -> GANsformerConfig:
    from pydantic import ValidationError

    try:
        return GANsformerConfig(**values)
    except ValidationError as bad:
        raise CheckpointError(f"a GANsformer that cannot be built: {bad.errors()[0]['msg']}") from None


def _generator(tensors: Mapping[str, Tensor], config: GANsformerConfig) -> Tensors:
    renamed = {}
    for name, value in tensors.items():
        ours = _generator_name(name, config)
        if ours is not None:
            renamed[ours] = value.squeeze(0) if ours.endswith("centroids") else value
    return renamed


def _generator_name(name: str, config: GANsformerConfig) -> str | None:
    """Our name of a tensor, or None where nothing reads it."""
    if name.rpartition(".")[2] in NEVER_READ:
        return None
    if name == "pos":
        reads = config.mapping.self_attention or config.attention == "simplex"
        return "component_positions" if reads else None
    if not config.synthesis.style and (".affine." in name or name.startswith("mapping.global_mlp.")):
        return None
    if found := re.match(r"mapping\.(global_mlp|mlp)\.(.+)", name):
        return _mapping_name(found[1], found[2])
    found = re.match(r"synthesis\.b(\d+)\.(.+)", name)
    if found is None:
        raise CheckpointError(f"no GANsformer generator: `{name}` is unknown")
    block, rest = f"blocks.{int(math.log2(int(found[1]))) - 2}", found[2]
    if rest == "const":
        return f"{block}.constant"
    part, _, rest = rest.partition(".")
    if part == "conv_stem":
        return f"{block}.stem.{rest}"
    if part == "skip":
        return f"{block}.skip.{rest}"
    if part == "torgb":
        return f"{block}.to_rgb.bias" if rest == "biasAct.bias" else f"{block}.to_rgb.conv.{rest}"
    if part == "conv_last":
        return f"{block}.last.{rest}"
    ours = {"conv0": "up", "conv1": "layer"}.get(part)
    if ours is None:
        raise CheckpointError(f"no GANsformer generator: `{name}` is unknown")
    return _layer_name(f"{block}.{ours}", rest, config)


def _layer_name(layer: str, rest: str, config: GANsformerConfig) -> str | None:
    if rest == "biasAct.bias":
        return f"{layer}.bias"
    if rest == "noise_strength":
        return f"{layer}.noise_strength"
    if not rest.startswith("transformer."):
        return f"{layer}.conv.{rest}"
    rest = rest.removeprefix("transformer.")
    if rest == "centroids":
        return f"{layer}.attention.centroids"
    if rest == "att_weight":
        return f"{layer}.attention.centroid_scale"
    part, _, kind = rest.partition(".")
    if config.attention == "centroid" and part in ("to_keys", "to_pos_map"):
        return None
    return f"{layer}.attention.{IN_ATTENTION[part]}.{kind}"


def _mapping_name(network: str, rest: str) -> str:
    ours = {"global_mlp": "unique", "mlp": "shared"}[network]
    part, _, kind = rest.partition(".")
    if part == "out_layer":
        return f"mapping_network.{ours}.output.{kind}"
    number = int(re.sub(r"\D", "", part))
    block = f"mapping_network.{ours}.blocks.{number}"
    if part.startswith("sa"):
        inner, _, kind = kind.partition(".")
        return f"{block}.attention.{IN_ATTENTION[inner]}.{kind}"
    layer, _, last = kind.partition(".")
    if layer in ("fc0", "fc1"):
        return f"{block}.{'first' if layer == 'fc0' else 'second'}.{last}"
    return f"{block}.first.{kind}"
