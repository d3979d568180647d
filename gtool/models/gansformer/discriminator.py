"""The discriminator of GANsformer: StyleGAN2's residual network.

Analyzing and Improving the Image Quality of StyleGAN (Karras et al. 2020); compared with dorarad/gansformer,
pytorch_version/training/networks.py (Discriminator).

Axis letters: N images, C channels, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gtool.models.gansformer.config import SMALLEST, GANsformerConfig
from gtool.nn import classes as by_class
from gtool.nn.precision import without_autocast
from gtool.nn.ranges import ramp
from gtool.nn.stylegan2 import Convolution, EqualizedLinear, activate

HALF = math.sqrt(0.5)
SPREAD_EPS = 1e-8


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second to half the side, and a way around them."""

    is_block = True  # for train.recompute

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = Convolution(inputs, inputs, 3, active=True)
        self.second = Convolution(inputs, outputs, 3, active=True, down=True, gain=HALF)
        self.skip = Convolution(inputs, outputs, 1, down=True, bias=False, gain=HALF)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / 2, W / 2)."""
        rest: Tensor = self.skip(x)
        return rest + self.second(self.first(x))


class Discriminator(nn.Module):
    """Image -> one logit."""

    def __init__(self, config: GANsformerConfig) -> None:
        super().__init__()
        settings = config.discriminator
        channels = config.discriminator_channels
        self.noise_shapes: tuple[tuple[int, ...], ...] = ()
        self.resolution = config.resolution
        self.group_size = settings.group_size
        self.group_channels = settings.group_channels if settings.group_size > 1 else 0
        sides = config.sides[:0:-1]  # the resolution down to 8
        self.from_rgb = Convolution(3, channels(config.resolution), 1, active=True)
        self.blocks = nn.ModuleList(DiscriminatorBlock(channels(side), channels(side // 2)) for side in sides)
        last = channels(SMALLEST)
        self.conv = Convolution(last + self.group_channels, last, 3, active=True)
        self.hidden = EqualizedLinear(last * SMALLEST**2, last)
        self.logit = EqualizedLinear(last, 1)
        self.classes = by_class.embedding(config.classes, last, zero=True)

    def forward(
        self,
        images: Tensor,
        _noise: Sequence[Tensor] | None = None,
        classes: Tensor | None = None,
        *,
        with_features: bool = False,
    ) -> Any:
        """Judge images.

        Args:
            images: (N, 3, R, R) in [-1, 1], augmented already; N a multiple of `group_size`, or below it.
            classes: int64 (N,), of a conditional discriminator.

            with_features: return what the logits are made of beside them.

        Returns:
            (N,) float32 logits, and with_features (N, C).

        Raises:
            ValueError: N is neither.
        """
        group = min(self.group_size, len(images))
        if len(images) % group:
            raise ValueError(f"{len(images)} images are no multiple of group_size = {self.group_size}")
        x = self.from_rgb(images.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        if self.group_channels:
            x = torch.cat([x, _spread(x, group, self.group_channels)], dim=1)
        x = self.conv(x)
        # The head in float32: a loss of the difference of two logits near 20 would be blind in half precision.
        with without_autocast(x):
            features = activate(self.hidden(x.float().flatten(1)))
            logits = self.logit(features)
            logits = by_class.add_projection(
                logits, features, self.classes, classes, self.logit.gain
            ).squeeze(-1)
        return (logits, features) if with_features else logits

    def example_inputs(self) -> tuple[Any, ...]:
        """Return one image, and its class where it has one."""
        image = ramp(self.logit.weight, 3, self.resolution, self.resolution)
        return (image, *by_class.example(self.classes))


def _spread(x: Tensor, group: int, channels: int) -> Tensor:
    """Standard deviation within consecutive groups, averaged: (N, C, H, W) -> (N, channels, H, W)."""
    n, _, height, width = x.shape
    with without_autocast(x):
        y = x.float().reshape(n // group, group, channels, -1, height, width)
        y = y - y.mean(dim=1, keepdim=True)
        y = (y.square().mean(dim=1) + SPREAD_EPS).sqrt()  # (N / group, channels, C / channels, H, W)
        y = y.mean(dim=(2, 3, 4)).repeat_interleave(group, dim=0)  # (N, channels)
        return y[:, :, None, None].expand(-1, -1, height, width).to(x.dtype)
