"""Released discriminators by our names: they are compared, and gtool itself reads none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from gtool.models.gansformer.released import NEVER_READ
from gtool.models.released_files import Rules, numbers
from gtool.models.transgan.released import in_blocks, rename_network

DISCRIMINATOR = "loss.discriminator.main."  # in a tokenizer's file


def rename_residual_discriminator(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
    raise AssertionError(f"no GANsformer: `{name}` is unknown")


def rename_patch_discriminator(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the discriminator in a released tokenizer's file by our names, with its running moments.

    Raises:
        AssertionError: there is none, or one with other norms than those over the batch.
    """
    theirs = {k.removeprefix(DISCRIMINATOR): v for k, v in tensors.items() if k.startswith(DISCRIMINATOR)}
    layers = (sum(1 for name in theirs if re.fullmatch(r"\d{1,2}\.weight", name)) - 2) // 2
    names = {0: "first", 2 + 3 * layers: "last"}
    for layer in range(layers):
        names |= {2 + 3 * layer: f"convs.{layer}", 3 + 3 * layer: f"norms.{layer}"}
    renamed: dict[str, Tensor] = {}
    for name, value in theirs.items():
        number, _, kind = name.partition(".")
        if layers < 1 or not number.isdecimal() or int(number) not in names or kind in ("loc", "scale"):
            raise AssertionError(f"no released discriminator: `{name}` is unknown")
        renamed[f"{names[int(number)]}.{kind}"] = value
    if not renamed:
        raise AssertionError("holds no discriminator")
    return renamed


def rename_transgan_discriminator(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a released discriminator of TransGAN by our names."""
    rules: Rules = [
        ("cls_token", "head.token"),
        (r"norm\.norm\.(weight|bias)", r"head.norm.\1"),
        (r"head\.(weight|bias)", r"head.logit.\1"),
        ("Hz_fbank|Hz_geom", None),
    ]
    blocks = [(r"last_block\.(\d+)", r"head.blocks.\1")]
    for stage in range(3):
        rules.append((f"pos_embed_{stage + 1}", f"stages.{stage}.position"))
        rules.append((rf"fRGB_{stage + 1}\.(weight|bias)", rf"stages.{stage}.embed.\1"))
        blocks.append((rf"blocks_{stage + 1}\.(\d+)", rf"stages.{stage}.blocks.\1"))
        tiled = len(numbers(tensors, rf"blocks_{stage + 1}\.(\d+)\."))  # blocks over the whole map follow
        for number in numbers(tensors, rf"blocks_{stage + 1}1\.(\d+)\."):
            blocks.append((rf"blocks_{stage + 1}1\.({number})", f"stages.{stage}.blocks.{tiled + number}"))
    return rename_network(tensors, rules + in_blocks(blocks))


def describe_transgan_discriminator(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the table of our config that the shapes of a released discriminator of TransGAN imply."""
    stages = []
    for number in sorted(numbers(tensors, r"pos_embed_(\d)$")):
        tokens, channels = tensors[f"pos_embed_{number}"].shape[1:]
        tiled, full = (len(numbers(tensors, rf"blocks_{number}{end}\.(\d+)\.")) for end in ("", "1"))
        stages.append(
            {"side": isqrt(tokens), "channels": channels, "depth": tiled + full, "full_blocks": full}
        )
    widths = [tensors[f"fRGB_{number}.weight"].shape[-1] for number in (1, 2)]
    stages[0]["overlap"] = widths[0] == widths[1]
    table = tensors.get("blocks_1.0.attn.relative_position_bias_table")
    # Without relative tables, the script tells: tiles of 4 x 4.
    window = 4 if table is None else (isqrt(table.shape[0]) + 1) // 2
    return {
        "stages": stages,
        "window": window if stages[0]["full_blocks"] or table is None else 16,
        "norm": "ln" if any(name.endswith("norm1.norm.weight") for name in tensors) else "pn",
        "noise": any(name.endswith("attn.noise_strength_1") for name in tensors),
        "relative_position": "none" if table is None else "learned",
    }
