"""Tokenizers of a size for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gtool.models.vqgan.config import VQGANConfig
from gtool.models.vqgan.network import PatchDiscriminator, Tokenizer, build
from tests.helpers.gansformer_formula import chirp

TINY: dict[str, Any] = {
    "resolution": 16,
    "channels": 8,
    "multipliers": [1, 2, 2],
    "blocks": 1,
    "attention_sides": [4],
    "norm_groups": 4,
    "z_channels": 8,
    "quantizer": {"size": 32, "dim": 8},
    "discriminator": {"channels": 8, "layers": 2},
}
# As for the scenes: one block a level, no attention, codes of few dimensions.
PLAIN: dict[str, Any] = {
    "resolution": 32,
    "channels": 16,
    "multipliers": [1, 2, 4],
    "blocks": 1,
    "decoder_blocks": 1,
    "middle_blocks": 1,
    "middle_attention": False,
    "attention_sides": [],
    "norm_groups": 8,
    "z_channels": 16,
    "quantizer": {"kind": "cosine", "size": 64, "dim": 8},
    "discriminator": {"channels": 16, "layers": 2, "norm": "group"},
}


def tiny(**changes: Any) -> VQGANConfig:
    """Return the config of a tiny tokenizer."""
    return VQGANConfig.model_validate(TINY | changes)


def networks(config: VQGANConfig | None = None, seed: int = 0) -> tuple[Tokenizer, PatchDiscriminator]:
    """Return a tokenizer and its discriminator, from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer, discriminator = build(config or tiny())
    return tokenizer, discriminator


def pictures(count: int = 2, side: int = 16, channels: int = 3, seed: int = 0) -> Tensor:
    """Return images (N, C, side, side) in [-1, 1]: gradients and noise."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(-1, 1, side).expand(count, channels, side, side)
    slopes = torch.rand(count, channels, 1, 1, generator=generator) * 2 - 1
    noise = torch.rand(count, channels, side, side, generator=generator) * 2 - 1
    return (slopes * ramp + (1 - slopes) * ramp.transpose(2, 3) + 0.3 * noise).clamp(-1, 1)


def formula_state(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return a tensor for every name, of the size that convolutions have; gains of norms around 1."""
    state = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        is_gain = "norm" in name and name.endswith("weight")
        inputs = int(torch.Size(shape[1:]).numel()) if len(shape) > 1 else 25
        scale = 1.0 if name.startswith("quantize") else inputs**-0.5
        state[name] = chirp(shape, number, scale) + float(is_gain)
    return state
