"""Released TransGAN generators -> our names and the config that their shapes imply.

Read for VITA-Group/TransGAN at its last commit: CIFAR-10, STL-10, Church 256 and CelebA-HQ 256. Dropped,
because nothing in the released forward passes reads them: index buffers of the relative tables (computed
here) and noise strengths inside cross-attention (CelebA-HQ).

One fact is not in the tensors and is taken from the release's scripts: 4 heads at every width.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from gtool.config.recipe import first_reason
from gtool.errors import CheckpointError
from gtool.models.released_files import Rules, Tensors, numbers, rename
from gtool.models.transgan.config import PRESETS, RESOLUTIONS, TransGANConfig

KIND = "(weight|bias)"
# Names inside a block, after a first group with its number.
IN_BLOCK: Rules = [
    (rf"norm(1|2)\.norm\.{KIND}", r"norm\2.\3"),
    (r"attn\.qkv\.weight", "attention.qkv.weight"),
    (rf"attn\.proj\.{KIND}", r"attention.out.\2"),
    (r"attn\.relative_position_bias_table", "attention.relative.table"),
    (r"attn\.noise_strength_1", "noise_strength"),
    (rf"mlp\.fc1\.{KIND}", r"mlp.expand.\2"),
    (rf"mlp\.fc2\.{KIND}", r"mlp.contract.\2"),
    (r"cross_attention\.q_transform\.weight", "cross.query.weight"),
    (r"cross_attention\.k_transform\.weight", "cross.key.weight"),
    (r"cross_attention\.v_transform\.weight", "cross.value.weight"),
    (rf"cross_attention\.proj\.{KIND}", r"cross.out.\2"),
    (r"attn\.relative_position_index|cross_attention\.noise_strength_1", None),
]
OUTSIDE: Rules = [
    (rf"l1\.{KIND}", r"input.\1"),
    (rf"embedding_transform\.{KIND}", r"context.\1"),
    ("embed_pos", "context_position"),
    (rf"deconv\.0\.{KIND}", r"to_rgb.\1"),
]


def rename_released(tensors: Mapping[str, Tensor]) -> tuple[TransGANConfig, Tensors]:
    """Return the config and the renamed tensors of a released generator's state dict.

    The config's discriminator is the one that was released with this generator, or, for other sizes, the
    default one for its resolution.

    Raises:
        CheckpointError: names or shapes that no released generator has.
    """
    if "l1.weight" not in tensors:
        raise CheckpointError("no released TransGAN generator: `l1.weight` is missing")
    try:
        config = _infer(tensors)
    except KeyError as missing:
        raise CheckpointError(f"no released TransGAN network: {missing} is missing") from None
    except (ValueError, IndexError) as bad:
        raise CheckpointError(f"no released TransGAN network: {first_reason(bad)}") from None
    rules, blocks = list(OUTSIDE), [(r"blocks\.block\.(\d+)", r"stages.0.blocks.\1")]
    for stage in range(6):
        rules.append((f"pos_embed_{stage + 1}", f"stages.{stage}.position"))
        blocks.append((rf"upsample_blocks\.{stage}\.block\.(\d+)", rf"stages.{stage + 1}.blocks.\1"))
        blocks.append((rf"blocks_{stage + 1}\.block\.(\d+)", rf"stages.{stage}.blocks.\1"))
    return config, rename_network(tensors, rules + in_blocks(blocks))


def in_blocks(blocks: list[tuple[str, str]]) -> Rules:
    """Return the rules of all parts of blocks, given as their pattern, whose only group is a number, and our name."""
    return [
        (rf"{theirs}\.(?:{part})", name and f"{ours}.{name}")
        for theirs, ours in blocks
        for part, name in IN_BLOCK
    ]


def rename_network(tensors: Mapping[str, Tensor], rules: Rules) -> Tensors:
    """Give every tensor our name and layout; CheckpointError: a name that no rule fits."""
    renamed = rename(tensors, rules, "no released TransGAN network")
    for name, tensor in renamed.items():
        if name.endswith("relative.table"):
            renamed[name] = tensor.t().contiguous()  # (heads, (2w-1)^2)
        elif name.endswith(("position", "token")):
            renamed[name] = tensor.squeeze(0)  # (L, C)
        elif name == "to_rgb.weight":
            renamed[name] = tensor.flatten(1)
    return renamed


def _infer(tensors: Mapping[str, Tensor]) -> TransGANConfig:
    generator = _generator_values(tensors)
    resolution, z_dim = generator["stages"][-1]["side"], tensors["l1.weight"].shape[1]
    values: dict[str, Any] = {"resolution": resolution, "z_dim": z_dim, "generator": generator}
    for preset in map(TransGANConfig.preset, PRESETS):
        if preset.resolution == resolution and preset.z_dim == z_dim:
            candidate = TransGANConfig.model_validate(values | {"discriminator": preset.discriminator})
            if candidate == preset:
                return candidate
    partner: Any = {"stages": [{"side": resolution // 2, "channels": 384, "depth": 3}]}
    if resolution in RESOLUTIONS:
        partner = TransGANConfig().at_resolution(resolution).discriminator
    return TransGANConfig.model_validate(values | {"discriminator": partner})


def _generator_values(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    count = len(numbers(tensors, r"pos_embed_(\d)$"))
    if not count:
        raise KeyError("pos_embed_1")
    is_large = count == 6
    with_context = "embedding_transform.weight" in tensors
    stages: list[dict[str, Any]] = []
    for index in range(count):
        tokens, channels = tensors[f"pos_embed_{index + 1}"].shape[1:]
        small = r"blocks\.block" if index == 0 else rf"upsample_blocks\.{index - 1}\.block"
        blocks = rf"blocks_{index + 1}\.block" if is_large else small
        stages.append(
            {
                "side": isqrt(tokens),
                "channels": channels,
                "depth": len(numbers(tensors, rf"{blocks}\.(\d+)\.")),
                "upsample": "bicubic" if is_large and index in (1, 2) else None,
                "low_pass": with_context and index > 3,
            }
        )
    # Layer norm has parameters; of the norms without, the scripts use pixel norm alone.
    has_gains = any(name.endswith("norm1.norm.weight") for name in tensors)
    return {
        "stages": stages,
        "full_attention_until": 32 if is_large else max(32, stages[-1]["side"]),
        "norm": "ln" if has_gains else "pn",
        "noise": any(name.endswith("attn.noise_strength_1") for name in tensors),
        "modulation": "cross-attention" if with_context else "none",
    }
