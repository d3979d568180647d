"""Released priors of a size for tests: their tensors by their names, and what they compute, written out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

TRANSFORMER = "transformer."


def state(
    *, layers: int = 2, width: int = 16, vocabulary: int = 32, block: int = 32, unmasked: int = 0
) -> dict[str, Tensor]:
    """Return random tensors with the names of taming/modules/transformer/mingpt.py, masks included."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return 0.3 * torch.randn(shape, generator=generator)

    tensors = {
        "tok_emb.weight": draw(vocabulary, width),
        "pos_emb": draw(1, block, width),
        "ln_f.weight": 1 + draw(width),
        "ln_f.bias": draw(width),
        "head.weight": draw(vocabulary, width),
    }
    mask = torch.ones(block, block).tril()
    mask[:unmasked, :unmasked] = 1
    linear = {"attn.key": (1, 1), "attn.query": (1, 1), "attn.value": (1, 1), "attn.proj": (1, 1)}
    for layer in range(layers):
        here = f"blocks.{layer}."
        for norm in ("ln1", "ln2"):
            tensors |= {f"{here}{norm}.weight": 1 + draw(width), f"{here}{norm}.bias": draw(width)}
        for name, (inputs, outputs) in (linear | {"mlp.0": (1, 4), "mlp.2": (4, 1)}).items():
            tensors[f"{here}{name}.weight"] = draw(outputs * width, inputs * width)
            tensors[f"{here}{name}.bias"] = draw(outputs * width)
        tensors[f"{here}attn.mask"] = mask.view(1, 1, block, block)
    return {TRANSFORMER + name: value for name, value in tensors.items()}


def logits(tensors: Mapping[str, Tensor], tokens: Tensor, heads: int) -> Tensor:
    """Return what the released transformer says after every token: (N, T) -> (N, T, K)."""
    own = {name.removeprefix(TRANSFORMER): value for name, value in tensors.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ own[f"{name}.weight"].T + own[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * own[f"{name}.weight"] + own[f"{name}.bias"]

    length = tokens.shape[1]
    x = own["tok_emb.weight"][tokens] + own["pos_emb"][:, :length]
    layer = 0
    while f"blocks.{layer}.ln1.weight" in own:
        here = f"blocks.{layer}."
        seen = norm(x, f"{here}ln1")
        q, k, v = (linear(seen, f"{here}attn.{part}").chunk(heads, -1) for part in ("query", "key", "value"))
        blocked = own[f"{here}attn.mask"][0, 0, :length, :length] == 0
        read = []
        for one, other, value in zip(q, k, v, strict=True):
            scores = one @ other.transpose(1, 2) / math.sqrt(one.shape[-1])
            read.append(scores.masked_fill(blocked, -math.inf).softmax(-1) @ value)
        x = x + linear(torch.cat(read, -1), f"{here}attn.proj")
        hidden = linear(norm(x, f"{here}ln2"), f"{here}mlp.0")
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + linear(hidden, f"{here}mlp.2")
        layer += 1
    return norm(x, "ln_f") @ own["head.weight"].T


def tokenizer(channels: int = 3, size: int = 32) -> tuple[Any, dict[str, Tensor]]:
    """Return the config of a tokenizer of 4 x 4 codes, and tensors that stand for its own."""
    from tests.helpers.vqgans import tiny

    return tiny(image_channels=channels, quantizer={"size": size, "dim": 8}), {"weight": torch.ones(channels)}
