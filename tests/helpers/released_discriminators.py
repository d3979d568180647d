"""Released discriminators by our names: they are compared, and gtool itself reads none."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from gtool.models.gansformer.released import NEVER_READ
from gtool.models.vqgan.released import DISCRIMINATOR


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
