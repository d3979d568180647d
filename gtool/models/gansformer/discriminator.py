"""The discriminator of GANsformer: StyleGAN2's residual network, with components that read its maps as an option.

Analyzing and Improving the Image Quality of StyleGAN (Karras et al. 2020); compared with dorarad/gansformer,
pytorch_version/training/networks.py (Discriminator) and, for the components, training/network.py of the first release.

Axis letters: N images, C channels, H W pixels, k components, d their width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gtool.models.gansformer.config import SMALLEST, GANsformerConfig
from gtool.nn.positions import GridEncoding
from gtool.nn.precision import without_autocast
from gtool.nn.ranges import ramp
from gtool.nn.stylegan2 import Convolution, EqualizedLinear, activate

HALF = math.sqrt(0.5)
SPREAD_EPS = 1e-8


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second to half the side, and a way around them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = Convolution(inputs, inputs, 3, active=True)
        self.second = Convolution(inputs, outputs, 3, active=True, down=True, gain=HALF)
        self.skip = Convolution(inputs, outputs, 1, down=True, bias=False, gain=HALF)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / 2, W / 2)."""
        rest: Tensor = self.skip(x)
        return rest + self.second(self.first(x))


class Reader(nn.Module):
    """Components attend to the pixels of a map and add what they find to themselves."""

    def __init__(self, channels: int, width: int, side: int) -> None:
        super().__init__()
        self.query = EqualizedLinear(width, width)
        self.key = EqualizedLinear(channels, width)
        self.value = EqualizedLinear(channels, width)
        self.grid = GridEncoding("fourier", side, 16)
        self.place = EqualizedLinear(16, width)
        self.output = EqualizedLinear(width, width)

    def forward(self, components: Tensor, x: Tensor) -> Tensor:
        """(N, k, d), (N, C, H, W) -> (N, k, d); explicit products, since penalties differentiate twice."""
        pixels = x.flatten(2).transpose(1, 2)  # (N, H W, C)
        keys = self.key(pixels) + self.place(self.grid()).to(x.dtype)
        scores = self.query(components).to(keys.dtype) @ keys.transpose(1, 2)
        attention = (scores.float() / math.sqrt(components.shape[-1])).softmax(dim=-1)
        return components + self.output(attention.to(x.dtype) @ self.value(pixels)).to(components.dtype)


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
        self.components: nn.Parameter | None = None
        if settings.components:
            width = settings.component_dim
            self.components = nn.Parameter(torch.rand(settings.components, width))
            self.readers = nn.ModuleList(Reader(channels(side), width, side) for side in [*sides, SMALLEST])
            self.score_hidden = EqualizedLinear(width + (self.group_channels > 0), width)
            self.score = EqualizedLinear(width, 1)
        self.logit = EqualizedLinear(last + settings.components, 1)

    def forward(self, images: Tensor, _noise: Sequence[Tensor] | None = None) -> Tensor:
        """Judge images.

        Args:
            images: (N, 3, R, R) in [-1, 1], augmented already; N a multiple of `group_size`, or below it.

        Returns:
            (N,) float32 logits.

        Raises:
            ValueError: N is neither.
        """
        group = min(self.group_size, len(images))
        if len(images) % group:
            raise ValueError(f"{len(images)} images are no multiple of group_size = {self.group_size}")
        components = None
        if self.components is not None:
            components = self.components.expand(len(images), -1, -1)
        x = self.from_rgb(images.contiguous(memory_format=torch.channels_last))
        for place, block in enumerate(self.blocks):
            components = components if components is None else self.readers[place](components, x)
            x = block(x)
        components = components if components is None else self.readers[-1](components, x)
        if self.group_channels:
            x = torch.cat([x, _spread(x, group, self.group_channels)], dim=1)
        x = self.conv(x)
        # The head in float32: a loss of the difference of two logits near 20 would be blind in half precision.
        with without_autocast(x):
            features = activate(self.hidden(x.float().flatten(1)))
            if components is not None:
                features = torch.cat([features, self._scores(components.float(), group)], dim=1)
            logits: Tensor = self.logit(features)
        return logits.squeeze(-1)

    def example_inputs(self) -> tuple[Tensor]:
        """Return one image."""
        return (ramp(self.logit.weight, 3, self.resolution, self.resolution),)

    def _scores(self, components: Tensor, group: int) -> Tensor:
        """One number for each component: (N, k, d) -> (N, k)."""
        if self.group_channels:
            spread = _spread(components.transpose(1, 2)[..., None], group, 1)  # (N, 1, k, 1)
            components = torch.cat([components, spread[:, 0]], dim=-1)
        return self.score(activate(self.score_hidden(components))).squeeze(-1)


def _spread(x: Tensor, group: int, channels: int) -> Tensor:
    """Standard deviation within consecutive groups, averaged: (N, C, H, W) -> (N, channels, H, W)."""
    n, _, height, width = x.shape
    with without_autocast(x):
        y = x.float().reshape(n // group, group, channels, -1, height, width)
        y = y - y.mean(dim=1, keepdim=True)
        y = (y.square().mean(dim=1) + SPREAD_EPS).sqrt()  # (N / group, channels, C / channels, H, W)
        y = y.mean(dim=(2, 3, 4)).repeat_interleave(group, dim=0)  # (N, channels)
        return y[:, :, None, None].expand(-1, -1, height, width).to(x.dtype)
