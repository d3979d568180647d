"""How much arithmetic a GANsformer takes, counted from its config without building it.

A FLOP is one multiply or one add; only matrix products and convolutions are counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gtool.models.gansformer.config import SMALLEST

if TYPE_CHECKING:
    from gtool.models.gansformer.config import GANsformerConfig

FILTER = 16  # taps of the low-pass


def flops(config: GANsformerConfig) -> dict[str, float]:
    """Return the FLOPs that one image takes through each network, forward only."""
    return {"generator": 2.0 * _generator_macs(config), "discriminator": 2.0 * _discriminator_macs(config)}


def _generator_macs(config: GANsformerConfig) -> float:
    total = _mapping_macs(config)
    synthesis = config.synthesis
    for side in config.sides:
        channels, pixels = config.channels(side), side * side
        attention = _attention_macs(config, channels, pixels) if side in config.attended_sides else 0.0
        total += pixels * channels * channels * 9 + attention
        if side > SMALLEST:
            below = config.channels(side // 2)
            total += pixels / 4 * below * channels * 9 + pixels * channels * FILTER + attention
            if synthesis.architecture == "resnet":
                total += pixels / 4 * below * channels + pixels * channels * FILTER
        if side == config.resolution and synthesis.last_conv:
            total += pixels * channels * channels * 9
        if side == config.resolution or synthesis.architecture == "skip":
            total += pixels * channels * 3
    return float(total)


def _mapping_macs(config: GANsformerConfig) -> float:
    components, width = config.z_shape
    mapping = config.mapping
    total = float(components * (mapping.layers + 1) * width * width)
    if mapping.self_attention and config.attention != "none":
        blocks = mapping.layers // 2 if mapping.residual else mapping.layers
        total += blocks * (components * 5 * width * width + 2 * components**2 * width)
    return total


def _attention_macs(config: GANsformerConfig, channels: int, pixels: int) -> float:
    """Scores and what is read, for every pixel; and the maps of the components alone."""
    synthesis, count = config.synthesis, config.components
    columns = synthesis.heads * count
    outputs = (2 if synthesis.integration == "both" else 1) * channels
    passes = synthesis.iterations + (config.attention == "duplex")
    gathers = passes - 1
    scores = passes * (pixels * columns * (channels + config.position_dim) + count * channels**2)
    gathered = gathers * (pixels * columns * (channels + config.position_dim) + count * channels**2)
    read = pixels * columns * outputs + count * channels * outputs
    return float(scores + gathered + read)


def _discriminator_macs(config: GANsformerConfig) -> float:
    settings, channels = config.discriminator, config.discriminator_channels
    total = float(config.resolution**2 * 3 * channels(config.resolution))
    for side in config.sides[:0:-1]:
        inputs, outputs, pixels = channels(side), channels(side // 2), side * side
        total += pixels * inputs * inputs * 9 + pixels / 4 * inputs * outputs * 10
        total += (pixels + pixels / 4) * inputs * FILTER
    last = channels(SMALLEST)
    total += SMALLEST**2 * (last + settings.group_channels) * last * 9 + SMALLEST**2 * last * last + last
    if settings.components:
        for side in config.sides[::-1]:
            each = channels(side) * 2 + 16 + 2 * settings.components
            total += side * side * settings.component_dim * each
    return total
