"""GANsformer: StyleGAN2's convolutions, each followed by attention between pixels and a few latent components.

Generative Adversarial Transformers (Hudson, Zitnick 2021, arXiv 2103.01209), section 3, on the generator and the
discriminator of StyleGAN2 (Karras et al. 2020); compared with dorarad/gansformer, pytorch_version/training/networks.py
(head of 2022-06-14). The released default at 256 px has 30.90 M and 28.86 M parameters; ours are those less what the
release never uses (tests/models/test_gansformer.py counts them). `attention = "none"` is StyleGAN2.

Deviations from the release, with their reasons:
- noise inputs are arguments and not drawn inside, so that an image is a function of its inputs;
- no running mean of w is kept: it is computed from the weights when truncation needs it, one for each component,
  where the release pulls all components to one point;
- the discriminator's groups are of consecutive images, so that they are the same for any number of processes;
- parameters that the release builds and never uses are not built.

Axis letters: N images, k local components, K of them with the global one (last), d width of a component, L layers
that take a w, C channels, H W pixels of a map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gtool.models.gansformer.attention import BipartiteAttention
from gtool.models.gansformer.config import SMALLEST, GANsformerConfig, MappingConfig, SynthesisConfig
from gtool.models.gansformer.discriminator import Discriminator
from gtool.nn import classes as by_class
from gtool.nn.positions import GridEncoding
from gtool.nn.precision import without_autocast
from gtool.nn.ranges import ramp
from gtool.nn.stylegan2 import SLOPE, Convolution, EqualizedLinear, LowPass, ModulatedConvolution, activate

__all__ = ["Discriminator", "Generator", "build"]

HALF = math.sqrt(0.5)  # of both branches of a residual block
Maps = tuple[Tensor, ...]


def normalize(z: Tensor) -> Tensor:
    """Scale (N, ...) to mean square 1 over all but the first axis."""
    return z * (z.square().mean(dim=tuple(range(1, z.ndim)), keepdim=True) + 1e-8).rsqrt()


# Mapping.


class MappingBlock(nn.Module):
    """Residual: lrelu(FC(lrelu(FC(x))) + what came in before any attention); else one FC and lrelu."""

    def __init__(
        self, width: int, mapping: MappingConfig, attention: SynthesisConfig | None, count: int
    ) -> None:
        super().__init__()
        self.attention = None
        if attention is not None:
            places = width if attention.component_positions else 0
            self.attention = BipartiteAttention(
                width, width, count, "simplex", attention, position_dim=places, component_position_dim=places
            )
        multiplier = mapping.multiplier
        self.first = EqualizedLinear(width, width, multiplier=multiplier)
        self.second = EqualizedLinear(width, width, multiplier=multiplier) if mapping.residual else None

    def forward(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """(N, k, d) -> (N, k, d)."""
        before = x
        if self.attention is not None:
            x, _ = self.attention(x, x, positions, positions)
        x = activate(self.first(x))
        return x if self.second is None else nn.functional.leaky_relu(self.second(x) + before, SLOPE)


class MappingMLP(nn.Module):
    """Blocks, then one layer more: for all local components alike, or for the global one."""

    def __init__(self, config: GANsformerConfig, count: int, *, attend: bool) -> None:
        super().__init__()
        mapping, width = config.mapping, config.z_shape[1]
        attention = None
        if attend and mapping.self_attention:
            plain = {"integration": "add", "norm": "none", "gate_pixels": False, "attention_gain": 1.0}
            attention = config.synthesis.model_copy(update=plain)
        number = mapping.layers // 2 if mapping.residual else mapping.layers
        self.blocks = nn.ModuleList(MappingBlock(width, mapping, attention, count) for _ in range(number))
        self.output = EqualizedLinear(width, width, multiplier=mapping.multiplier)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """(N, k, d) -> (N, k, d)."""
        for block in self.blocks:
            x = block(x, positions)
        return activate(self.output(x))


class Mapping(nn.Module):
    """z -> w."""

    def __init__(self, config: GANsformerConfig) -> None:
        super().__init__()
        count = config.z_shape[0] - 1
        is_read = config.synthesis.style or config.synthesis.stem == "latent"
        self.normalize_global = config.mapping.normalize_global or not count
        self.shared = MappingMLP(config, count, attend=True) if count else None
        self.unique = MappingMLP(config, 1, attend=False) if is_read else None
        self.classes = by_class.embedding(config.classes, math.prod(config.z_shape))

    def forward(self, z: Tensor, positions: Tensor | None, classes: Tensor | None) -> Tensor:
        """(N, K, d), with a class each (N,) or without -> (N, K, d), in float32 whatever autocast says."""
        with without_autocast(z):
            z = z.float()
            last = normalize(z[:, -1:]) if self.normalize_global else z[:, -1:]
            local = normalize(z[:, :-1]) if self.shared is not None else None
            vectors = by_class.vectors_of(self.classes, classes)
            if vectors is not None:  # each component has a part of them
                vectors = vectors.view_as(z)
                last, local = last + vectors[:, -1:], None if local is None else local + vectors[:, :-1]
            last = last if self.unique is None else self.unique(last)
            if self.shared is None:
                return last
            return torch.cat([self.shared(local, positions), last], dim=1)


# Synthesis.


class SynthesisLayer(nn.Module):
    """Modulated convolution, attention, noise, bias, activation, in this order (release)."""

    def __init__(
        self,
        config: GANsformerConfig,
        inputs: int,
        side: int,
        *,
        up: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        synthesis, width = config.synthesis, config.z_shape[1]
        channels = config.channels(side)
        self.side = side
        self.conv = ModulatedConvolution(inputs, channels, 3, width, style=synthesis.style, up=up)
        self.noise_strength = nn.Parameter(torch.zeros(())) if synthesis.noise else None
        self.bias = nn.Parameter(torch.zeros(channels))
        self.gain = gain * math.sqrt(2)
        self.attention: BipartiteAttention | None = None
        self.grid: GridEncoding | None = None
        if side in config.attended_sides and config.attention != "none":
            self.attention = BipartiteAttention(
                channels,
                width,
                config.components,
                config.attention,
                synthesis,
                position_dim=config.position_dim,
                component_position_dim=width if synthesis.component_positions else 0,
            )
            if synthesis.positions != "none":
                self.grid = GridEncoding(synthesis.positions, side, config.position_dim)

    def forward(
        self, x: Tensor, w: Tensor, positions: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Make a layer.

        Args:
            x: (N, C', H', W').
            w: (N, K, d).
            positions: (k, d) of the components.
            noise: (N, 1, H, W).

        Returns:
            (N, C, H, W), and the attention (N, h, k, H W) where there is any.
        """
        x, scale = self.conv(x, w[:, -1])
        attention = None
        if self.attention is not None:
            if scale is not None:
                x = x * scale.to(x.dtype)[:, :, None, None]
            x, attention = self._attend(self.attention, x, w[:, :-1], positions)
            scale = None
        bias = (self.bias * self.gain).to(x.dtype)[:, None, None]
        # The activation is homogeneous: its gain is in what comes before.
        if scale is None:
            x = torch.add(bias, x, alpha=self.gain)
        else:
            x = torch.addcmul(bias, x, (scale * self.gain).to(x.dtype)[:, :, None, None])
        if noise is not None and self.noise_strength is not None:
            x = x + (noise * (self.noise_strength * self.gain)).to(x.dtype)
        return nn.functional.leaky_relu(x, SLOPE), attention

    def _attend(
        self, layer: BipartiteAttention, x: Tensor, components: Tensor, positions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        n, channels, height, width = x.shape
        # Channels are innermost already, so neither way copies anything.
        tokens = x.permute(0, 2, 3, 1).reshape(n, height * width, channels)
        grid = None if self.grid is None else self.grid()
        tokens, attention = layer(tokens, components, grid, positions)
        return tokens.view(n, height, width, channels).permute(0, 3, 1, 2), attention


class ToRGB(nn.Module):
    """1 x 1 convolution to colours, modulated and not demodulated."""

    def __init__(self, config: GANsformerConfig, side: int) -> None:
        super().__init__()
        width, style = config.z_shape[1], config.synthesis.style
        self.conv = ModulatedConvolution(config.channels(side), 3, 1, width, style=style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, C, H, W), (N, K, d) -> (N, 3, H, W) in float32: half precision would round colours."""
        with without_autocast(x):
            x, _ = self.conv(x.float(), w[:, -1])
            return x + self.bias[:, None, None]


class SynthesisBlock(nn.Module):
    """The convolutions of one side, and a way around them."""

    is_block = True  # for train.recompute

    def __init__(self, config: GANsformerConfig, side: int) -> None:
        super().__init__()
        synthesis = config.synthesis
        before = 2 * config.sides.index(side)
        self.first_w = before if side == SMALLEST else before - 1 + (synthesis.stem == "latent")
        self.first_noise = max(0, before - 1)
        is_first, is_last = side == SMALLEST, side == config.resolution
        channels = config.channels(side)
        residual = synthesis.architecture == "resnet" and not is_first
        self.constant = self.stem = self.up = self.skip = self.last = self.to_rgb = None
        if not is_first:
            below = config.channels(side // 2)
            self.up = SynthesisLayer(config, below, side, up=True)
            if residual:
                self.skip = Convolution(below, channels, 1, up=True, bias=False, gain=HALF)
        elif synthesis.stem == "latent":
            self.stem = EqualizedLinear(config.z_shape[1], channels * side * side)
        else:
            self.constant = nn.Parameter(torch.randn(channels, side, side))
        self.layer = SynthesisLayer(config, channels, side, gain=HALF if residual else 1.0)
        if is_last and synthesis.last_conv:
            self.last = ModulatedConvolution(channels, channels, 3, config.z_shape[1], style=synthesis.style)
        self.low_pass = LowPass() if synthesis.architecture == "skip" else None
        if is_last or synthesis.architecture == "skip":
            self.to_rgb = ToRGB(config, side)

    def forward(
        self,
        x: Tensor,
        image: Tensor | None,
        ws: Tensor,
        noise: Sequence[Tensor | None],
        positions: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Make a map from the one below, (N, C', H / 2, W / 2), and add its colours to the image.

        Args:
            x: of any shape for the first block, which makes its own.
            image: (N, 3, H / 2, W / 2) so far.
            ws: (N, L, K, d), of all layers of the network; as noise, of which each may be None.
            noise: (N, 1, H, W) each.
            positions: (k, d) of the components.

        Returns:
            (N, C, H, W), the image where there are colours, and the attention (N, h, k, H W) of each layer with any.
        """
        place, given, rest, maps = self.first_w, self.first_noise, None, []
        if self.up is not None:
            rest = None if self.skip is None else self.skip(x)
            x, attention = self.up(x, ws[:, place], positions, noise[given])
            maps.append(attention)
            place, given = place + 1, given + 1
        else:
            if self.stem is not None:
                x = activate(self.stem(ws[:, place, -1]), 0.5)  # sqrt(2) / 4 before the activation's sqrt(2)
                x = x.view(ws.shape[0], -1, SMALLEST, SMALLEST)  # shapes, unlike len, can be traced
                place += 1
            elif self.constant is not None:
                x = self.constant.expand(ws.shape[0], -1, -1, -1)
            if x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
                x = x.to(torch.get_autocast_dtype(x.device.type))
            x = x.contiguous(memory_format=torch.channels_last)
        x, attention = self.layer(x, ws[:, place], positions, noise[given])
        maps.append(attention)
        place += 1
        x = x if rest is None else x + rest
        if image is not None and self.low_pass is not None:
            image = self.low_pass.enlarge(image)
        if self.last is not None:
            x, scale = self.last(x, ws[:, place, -1])
            x = x if scale is None else x * scale.to(x.dtype)[:, :, None, None]
            place += 1
        if self.to_rgb is not None:
            colours = self.to_rgb(x, ws[:, place])
            image = colours if image is None else image + colours
        return x, image, [attention for attention in maps if attention is not None]

    @property
    def layers(self) -> list[SynthesisLayer]:
        """Those with noise, and with attention if the side has any."""
        return [layer for layer in (self.up, self.layer) if layer is not None]


class Generator(nn.Module):
    """z -> image, unbounded; it is clamped when saved."""

    def __init__(self, config: GANsformerConfig) -> None:
        super().__init__()
        self.config = config
        self.z_shape = config.z_shape
        self.num_ws = config.num_ws
        self.num_classes = len(config.classes)
        self.dropout = 0.0 if config.attention == "none" else config.synthesis.dropout
        width = config.z_shape[1]
        is_read = config.mapping.self_attention or config.attention != "centroid"
        needs_positions = config.attention != "none" and config.synthesis.component_positions and is_read
        self.component_positions = (
            nn.Parameter(torch.rand(config.components, width)) if needs_positions else None
        )
        self.mapping_network = Mapping(config)
        blocks = [SynthesisBlock(config, side) for side in config.sides]
        self.blocks = nn.ModuleList(blocks)
        layers = [layer for block in blocks for layer in block.layers]
        self.noise_shapes = tuple((1, layer.side, layer.side) for layer in layers if config.synthesis.noise)
        self.attention_layers = tuple(
            f"{layer.side}{'ab'[place]}"
            for block in blocks
            for place, layer in enumerate(block.layers)
            if layer.attention is not None
        )

    def forward(
        self,
        z: Tensor,
        noise: Sequence[Tensor] | None = None,
        classes: Tensor | None = None,
        *,
        second: Tensor | None = None,
        from_layer: Tensor | None = None,
        from_component: Tensor | None = None,
        with_ws: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Make images.

        Args:
            z: (N, K, d), N(0, 1).
            noise: one (N, 1, H, W) of N(0, 1) for every shape in `noise_shapes`; None adds none.
            classes: int64 (N,), of a conditional generator.
            second: (N, K, d) other latents to mix in, of the same classes.
            from_layer: (N,) int64, the layers of each image from this one on take the second latents.
            from_component: (N,) int64, so do the components from this one on.
            with_ws: also return ws.

        Returns:
            (N, 3, R, R), meant for [-1, 1]; with `with_ws` also (N, L, K, d).
        """
        ws = self.broadcast(self.mapping(z, classes))
        if second is not None:
            others = self.broadcast(self.mapping(second, classes))
            taken = torch.zeros(ws.shape[:3], dtype=torch.bool, device=ws.device)
            for axis, start in ((1, from_layer), (2, from_component)):
                if start is not None:
                    number = torch.arange(ws.shape[axis], device=ws.device)
                    is_later = number >= start[:, None]  # (N, L) or (N, K)
                    taken = taken | is_later.unsqueeze(3 - axis)
            ws = torch.where(taken[..., None], others, ws)
        images, _ = self.synthesis(ws, noise)
        return (images, ws) if with_ws else images

    def example_inputs(self) -> tuple[Any, ...]:
        """Return z of one image, and its class where it has one."""
        z = ramp(next(self.parameters()), *self.z_shape)
        return (z, *by_class.example(self.mapping_network.classes))

    def mapping(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        """z (N, K, d), of classes (N,) where there are any -> w (N, K, d)."""
        w: Tensor = self.mapping_network(z, self.component_positions, classes)
        return w

    def broadcast(self, w: Tensor) -> Tensor:
        """The same w for every layer: (N, K, d) -> (N, L, K, d)."""
        return w.unsqueeze(1).expand(-1, self.num_ws, -1, -1)

    def synthesis(
        self, ws: Tensor, noise: Sequence[Tensor] | None = None, with_maps: bool = False
    ) -> tuple[Tensor, Maps]:
        """Make images of ws (N, L, K, d).

        Returns:
            (N, 3, R, R), and for each of `attention_layers` the maps (N, h, k, H, W) if asked for.
        """
        count = 2 * len(self.config.sides) - 1
        given = [None] * count if noise is None or not self.noise_shapes else noise
        maps: list[Tensor] = []
        x, image = ws, None
        for block in self.blocks:
            x, image, attention = block(x, image, ws, given, self.component_positions)
            maps += attention
        assert image is not None
        if not with_maps:
            maps = []
        return image * self.config.synthesis.rgb_gain, tuple(map(_as_maps, maps))


def _as_maps(attention: Tensor) -> Tensor:
    """(N, h, k, H W) -> (N, h, k, H, W)."""
    side = math.isqrt(attention.shape[-1])
    return attention.view(*attention.shape[:-1], side, side)


def build(config: GANsformerConfig) -> tuple[Generator, Discriminator]:
    """Build both networks from torch's current random stream."""
    return Generator(config), Discriminator(config)
