"""How much arithmetic a tokenizer takes, counted from its config without building it.

A FLOP is one multiply or one add; only matrix products and convolutions are counted.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gtool.models.vqgan.config import VQGANConfig


def flops(config: VQGANConfig) -> dict[str, float]:
    """Return the FLOPs that one image takes through each network, forward only."""
    if config.kind == "palette":
        return {"tokenizer": 2.0 * config.resolution**2 * 3 * config.palette_size}
    macs = encoder_macs(config) + decoder_macs(config)
    return {"tokenizer": 2.0 * macs, "discriminator": 2.0 * _discriminator_macs(config)}


def encoder_macs(config: VQGANConfig) -> float:
    """Return the multiplications of an image to its codes."""
    widths = [config.channels, *config.level_channels]
    total = float(config.resolution**2 * 9 * config.image_channels * config.channels)
    for before, width, side in zip(widths, widths[1:], config.sides, strict=False):
        total += _level_macs(before, width, side, config.blocks, side in config.attention_sides)
        if side > config.codes_side:
            total += (side // 2) ** 2 * 9 * width**2
    quantizer, places = config.quantizer, config.codes_side**2
    total += _middle_macs(config) + places * 9 * widths[-1] * config.z_channels
    total += places * config.z_channels * quantizer.code_dim
    return total + (0 if quantizer.kind == "fsq" else places * quantizer.size * quantizer.dim)


def decoder_macs(config: VQGANConfig) -> float:
    """Return the multiplications of codes to an image."""
    widths, places = config.level_channels[::-1], config.codes_side**2
    total = float(places * config.z_channels * (config.quantizer.code_dim + 9 * widths[0]))
    total += _middle_macs(config)
    for before, width, side in zip([widths[0], *widths], widths, config.sides[::-1], strict=False):
        total += _level_macs(before, width, side, config.blocks_up, side in config.attention_sides)
        if side < config.resolution:
            total += (2 * side) ** 2 * 9 * width**2
    return total + config.resolution**2 * 9 * widths[-1] * config.image_channels


def _level_macs(before: int, width: int, side: int, count: int, attends: bool) -> float:
    first = _block_macs(before, width, side)
    rest = (count - 1) * _block_macs(width, width, side)
    return first + rest + (count * _attention_macs(width, side) if attends else 0.0)


def _middle_macs(config: VQGANConfig) -> float:
    width, side = config.level_channels[-1], config.codes_side
    attention = _attention_macs(width, side) if config.middle_attention else 0.0
    return config.middle_blocks * _block_macs(width, width, side) + attention


def _block_macs(before: int, width: int, side: int) -> float:
    skip = before * width if before != width else 0
    return float(side**2 * (9 * before * width + 9 * width**2 + skip))


def _attention_macs(width: int, side: int) -> float:
    return float(side**2 * (4 * width**2 + 2 * side**2 * width))


def _discriminator_macs(config: VQGANConfig) -> float:
    settings = config.discriminator
    widths = [settings.channels * min(2**n, 8) for n in range(settings.layers + 1)]
    side = config.resolution // 2
    total = float(side**2 * 16 * config.image_channels * widths[0])
    for number, (before, width) in enumerate(pairwise(widths), 1):
        side = side - 1 if number == settings.layers else side // 2
        total += max(side, 0) ** 2 * 16 * before * width
    return total + max(side - 1, 0) ** 2 * 16 * widths[-1]
