"""Released TransGAN checkpoints -> our names and the config that their shapes imply.

Read for VITA-Group/TransGAN at its last commit: CIFAR-10, STL-10, Church 256 and CelebA-HQ 256. Dropped,
because nothing in the released forward passes reads them: index buffers of the relative tables (computed
here), noise strengths inside cross-attention (CelebA-HQ), filter buffers of the augmentation.

Two facts are not in the tensors and are taken from the release's scripts: 4 heads at every width, and tiles
of 4 x 4 in the CelebA-HQ discriminator, which has no relative tables to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

from torch import Tensor

from gtool.config.recipe import first_reason
from gtool.errors import CheckpointError
from gtool.models.released_files import Rules, rename
from gtool.models.transgan.config import PRESETS, RESOLUTIONS, TransGANConfig

Tensors = dict[str, Tensor]

# Names inside a block, theirs -> ours; None: never used in the released forward pass.
IN_BLOCK: dict[str, str | None] = {
    "norm1.norm.weight": "norm1.weight",
    "norm1.norm.bias": "norm1.bias",
    "norm2.norm.weight": "norm2.weight",
    "norm2.norm.bias": "norm2.bias",
    "attn.qkv.weight": "attention.qkv.weight",
    "attn.proj.weight": "attention.out.weight",
    "attn.proj.bias": "attention.out.bias",
    "attn.relative_position_bias_table": "attention.relative.table",
    "attn.relative_position_index": None,
    "attn.noise_strength_1": "noise_strength",
    "mlp.fc1.weight": "mlp.expand.weight",
    "mlp.fc1.bias": "mlp.expand.bias",
    "mlp.fc2.weight": "mlp.contract.weight",
    "mlp.fc2.bias": "mlp.contract.bias",
    "cross_attention.q_transform.weight": "cross.query.weight",
    "cross_attention.k_transform.weight": "cross.key.weight",
    "cross_attention.v_transform.weight": "cross.value.weight",
    "cross_attention.proj.weight": "cross.out.weight",
    "cross_attention.proj.bias": "cross.out.bias",
    "cross_attention.noise_strength_1": None,
}
OUTSIDE: dict[str, str | None] = {
    "l1.weight": "input.weight",
    "l1.bias": "input.bias",
    "embedding_transform.weight": "context.weight",
    "embedding_transform.bias": "context.bias",
    "embed_pos": "context_position",
    "deconv.0.weight": "to_rgb.weight",
    "deconv.0.bias": "to_rgb.bias",
    "cls_token": "head.token",
    "norm.norm.weight": "head.norm.weight",
    "norm.norm.bias": "head.norm.bias",
    "head.weight": "head.logit.weight",
    "head.bias": "head.logit.bias",
    "Hz_fbank": None,
    "Hz_geom": None,
}


@dataclass(frozen=True)
class Released:
    """What a released checkpoint holds, under our names; networks that it lacks are None."""

    config: TransGANConfig
    generator: Tensors | None
    ema: Tensors | None
    discriminator: Tensors | None


def rename_released(tensors: Mapping[str, Tensor]) -> tuple[TransGANConfig, Tensors]:
    """Return the config and the renamed tensors of a released generator's state dict.

    The config's discriminator is the one that was released with this generator, or, for other sizes, the
    default one for its resolution.

    Raises:
        CheckpointError: names or shapes that no released generator has.
    """
    read = read_released({"gen_state_dict": dict(tensors)})
    if read.generator is None:
        raise CheckpointError("no released TransGAN generator: `l1.weight` is missing")
    return read.config, read.generator


def read_released(checkpoint: Mapping[str, Any]) -> Released:
    """Rename every network of a released checkpoint: gen_state_dict, avg_gen_state_dict, dis_state_dict.

    Raises:
        CheckpointError: no generator, or names or shapes that no released network has.
    """
    found = {
        name: {str(key).removeprefix("module."): value for key, value in checkpoint[name].items()}
        for name in ("gen_state_dict", "avg_gen_state_dict", "dis_state_dict")
        if name in checkpoint
    }
    generator = found.get("gen_state_dict") or found.get("avg_gen_state_dict")
    if not generator or "l1.weight" not in generator:
        raise CheckpointError("no released TransGAN generator: `l1.weight` is missing")
    discriminator = found.get("dis_state_dict")
    try:
        config = _infer(generator, discriminator)
    except KeyError as missing:
        raise CheckpointError(f"no released TransGAN network: {missing} is missing") from None
    except (ValueError, IndexError) as bad:
        raise CheckpointError(f"no released TransGAN network: {first_reason(bad)}") from None
    renamed = {name: _rename(tensors) for name, tensors in found.items()}
    return Released(
        config, *(renamed.get(name) for name in ("gen_state_dict", "avg_gen_state_dict", "dis_state_dict"))
    )


def _rename(tensors: Tensors) -> Tensors:
    """Give every tensor our name and layout.

    Raises:
        CheckpointError: a name that is not known.
    """
    blocks = [(r"last_block\.(\d+)", r"head.blocks.\1"), (r"blocks\.block\.(\d+)", r"stages.0.blocks.\1")]
    rules: Rules = [(re.escape(theirs), ours) for theirs, ours in OUTSIDE.items()]
    for stage in range(6):
        rules += [
            (f"pos_embed_{stage + 1}", f"stages.{stage}.position"),
            (rf"fRGB_{stage + 1}\.(weight|bias)", rf"stages.{stage}.embed.\1"),
        ]
        blocks.append((rf"upsample_blocks\.{stage}\.block\.(\d+)", rf"stages.{stage + 1}.blocks.\1"))
        blocks.append((rf"blocks_{stage + 1}(?:\.block)?\.(\d+)", rf"stages.{stage}.blocks.\1"))
    for stage in (0, 1):  # the whole-map blocks come after the tiled ones
        tiled = _count(tensors, f"blocks_{stage + 1}.")
        for number in range(_count(tensors, f"blocks_{stage + 1}1.")):
            blocks.append((rf"blocks_{stage + 1}1\.{number}", f"stages.{stage}.blocks.{tiled + number}"))
    for theirs, ours in blocks:
        for part, name in IN_BLOCK.items():
            rules.append((rf"{theirs}\.{re.escape(part)}", name and f"{ours}.{name}"))
    renamed = rename(tensors, rules, "no released TransGAN network")
    return {name: _our_layout(name, tensor) for name, tensor in renamed.items()}


def _our_layout(name: str, tensor: Tensor) -> Tensor:
    if name.endswith("relative.table"):
        return tensor.t().contiguous()  # (heads, (2w-1)^2)
    if name.endswith(("position", "token")):
        return tensor.squeeze(0)  # (L, C)
    return tensor.flatten(1) if name == "to_rgb.weight" else tensor


def _count(tensors: Iterable[str], prefix: str) -> int:
    """Return how many blocks have names of this beginning."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({found[1] for name in tensors if (found := pattern.match(name))})


# Shapes -> config.


def _infer(generator: Tensors, discriminator: Tensors | None) -> TransGANConfig:
    values: dict[str, Any] = {
        "z_dim": generator["l1.weight"].shape[1],
        "generator": _generator_values(generator),
    }
    values["resolution"] = values["generator"]["stages"][-1]["side"]
    if discriminator is not None:
        return TransGANConfig.model_validate(values | {"discriminator": _discriminator_values(discriminator)})
    for preset in map(TransGANConfig.preset, PRESETS):
        if preset.resolution == values["resolution"] and preset.z_dim == values["z_dim"]:
            candidate = TransGANConfig.model_validate(values | {"discriminator": preset.discriminator})
            if candidate == preset:
                return candidate
    side = values["resolution"] // 2
    partner: Any = {"stages": [{"side": side, "channels": 384, "depth": 3}]}
    if values["resolution"] in RESOLUTIONS:
        partner = TransGANConfig().at_resolution(values["resolution"]).discriminator
    return TransGANConfig.model_validate(values | {"discriminator": partner})


def _generator_values(tensors: Tensors) -> dict[str, Any]:
    positions = [name for name in tensors if re.fullmatch(r"pos_embed_\d", name)]
    if not positions:
        raise KeyError("pos_embed_1")
    is_large = len(positions) == 6
    with_context = "embedding_transform.weight" in tensors
    stages: list[dict[str, Any]] = []
    for index in range(len(positions)):
        tokens, channels = tensors[f"pos_embed_{index + 1}"].shape[1:]
        small = "blocks.block." if index == 0 else f"upsample_blocks.{index - 1}.block."
        depth = _count(tensors, f"blocks_{index + 1}.block." if is_large else small)
        bicubic = is_large and index in (1, 2)
        stages.append(
            {
                "side": isqrt(tokens),
                "channels": channels,
                "depth": depth,
                "upsample": "bicubic" if bicubic else None,
                "low_pass": with_context and index > 3,
            }
        )
    return {
        "stages": stages,
        "full_attention_until": 32 if is_large else max(32, stages[-1]["side"]),
        "norm": _norm(tensors),
        "noise": any(name.endswith("attn.noise_strength_1") for name in tensors),
        "modulation": "cross-attention" if with_context else "none",
    }


def _discriminator_values(tensors: Tensors) -> dict[str, Any]:
    count = sum(1 for name in tensors if re.fullmatch(r"pos_embed_\d", name))
    stages = []
    for number in range(1, count + 1):
        tokens, channels = tensors[f"pos_embed_{number}"].shape[1:]
        full = _count(tensors, f"blocks_{number}1.")
        depth = _count(tensors, f"blocks_{number}.") + full
        stages.append({"side": isqrt(tokens), "channels": channels, "depth": depth, "full_blocks": full})
    widths = [tensors[f"fRGB_{number}.weight"].shape[-1] for number in (1, 2)]
    stages[0]["overlap"] = widths[0] == widths[1]
    table = tensors.get("blocks_1.0.attn.relative_position_bias_table")
    is_tiled = bool(stages[0]["full_blocks"]) or table is None
    window = 4 if table is None else (isqrt(table.shape[0]) + 1) // 2
    return {
        "stages": stages,
        "window": window if is_tiled else 16,
        "norm": _norm(tensors),
        "noise": any(name.endswith("attn.noise_strength_1") for name in tensors),
        "relative_position": "none" if table is None else "learned",
    }


def _norm(tensors: Tensors) -> str:
    """Layer norm has parameters; of the norms without, the scripts use pixel norm alone."""
    return "ln" if any(name.endswith("norm1.norm.weight") for name in tensors) else "pn"
