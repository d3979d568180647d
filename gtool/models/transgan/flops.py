"""How much arithmetic a TransGAN takes, counted from its config without building it.

A FLOP is one multiply or one add; only matrix products and convolutions are counted.
"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gtool.models.transgan.config import BlockSettings, GeneratorConfig, TransGANConfig


def flops(config: TransGANConfig) -> dict[str, float]:
    """Return the FLOPs that one image takes through each network, forward only.

    The last block of a class head is counted for every token, as released; here it is computed for one.
    """
    return {"generator": _generator_flops(config), "discriminator": _discriminator_flops(config)}


def _block_flops(settings: BlockSettings, channels: int, tokens: int, window: int) -> float:
    """Projections, MLP and the two products of attention of one block."""
    linear = tokens * channels * channels * (4 + 2 * settings.mlp_ratio)
    return 2.0 * (linear + 2 * tokens * window * window * channels)


def _generator_flops(config: TransGANConfig) -> float:
    generator = config.generator
    first = generator.stages[0]
    context_tokens = first.side**2 if generator.modulation == "cross-attention" else 0
    inputs = 1 + (context_tokens > 0)
    total = 2.0 * config.z_dim * first.side**2 * first.channels * inputs
    for index, stage in enumerate(generator.stages):
        tokens, window = stage.side**2, generator.window_of(stage.side)
        block = _block_flops(generator, stage.channels, tokens, window)
        if context_tokens:
            keys = 2 * context_tokens * first.channels * stage.channels
            block += 2.0 * (keys + 2 * tokens * stage.channels * (stage.channels + context_tokens))
        if generator.modulation == "gain":
            block += 4.0 * config.z_dim * stage.channels
        total += stage.depth * block
        if index:
            total += 2.0 * _change_macs(generator, index)
    last = generator.stages[-1]
    return total + 2.0 * last.side**2 * last.channels * 3 * generator.patch_size**2


def _change_macs(generator: GeneratorConfig, index: int) -> float:
    stage, arriving = generator.stages[index], generator.arriving_channels(index)
    if arriving == stage.channels:
        return 0.0
    after = (stage.upsample or generator.upsample) == "pixelshuffle"
    tokens = stage.side**2 if after else generator.stages[index - 1].side ** 2
    return float(tokens * arriving * stage.channels)


def _discriminator_flops(config: TransGANConfig) -> float:
    discriminator = config.discriminator
    total, before = 0.0, 0
    for stage in discriminator.stages:
        tokens = stage.side**2
        patch = (config.resolution // stage.side) * (2 if stage.overlap else 1)
        total += 2.0 * tokens * 3 * patch**2 * (stage.channels - before)
        total += sum(
            _block_flops(discriminator, stage.channels, tokens, w) for w in discriminator.windows(stage)
        )
        before = stage.channels
    last = discriminator.stages[-1]
    if discriminator.head == "pooled":
        return total + 2.0 * (discriminator.head_side**2 * last.channels**2 + last.channels)
    tokens = last.side**2 + 1
    side = isqrt(tokens)
    heads = discriminator.head_depth * (_block_flops(discriminator, last.channels, tokens, side))
    return total + heads + 2.0 * last.channels
