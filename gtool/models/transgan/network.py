"""TransGAN: a generator and a discriminator made of transformer blocks alone.

TransGAN: Two Pure Transformers Can Make One Strong GAN, and That Can Scale Up (Jiang, Chang, Wang 2021),
sections 3.1 to 3.4; compared with VITA-Group/TransGAN, models_search/. The default networks (CIFAR-10) have
83,312,495 and 10,210,393 parameters, as the released ones less the noise strengths of the discriminator.

Deviations from the release, with their reasons:
- noise inputs are arguments and not drawn inside, so that an image is a function of its inputs;
- the discriminator's noise is off unless the config asks for it, since it makes logits random;
- augmentation is not part of the discriminator;
- parameters that the release builds and never uses are not built.

Axis letters: N batch, L tokens of a map of side S, C channels, R resolution.
"""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.models.transgan.config import BlockSettings, DiscriminatorConfig, TransGANConfig
from gtool.models.transgan.resampling import (
    PatchEmbed,
    low_pass,
    pixel_shuffle,
    pool,
    smooth,
    to_map,
    to_tokens,
    upsample,
)
from gtool.nn import classes as by_class
from gtool.nn.attention import MLP, CrossAttention, SelfAttention
from gtool.nn.normalization import Normalization
from gtool.nn.positions import INIT_STD, from_tiles, neighbourhood_mask, to_tiles
from gtool.nn.precision import without_autocast
from gtool.nn.ranges import ramp


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (paper section 3.1)."""

    is_block = True  # for train.recompute

    def __init__(
        self,
        settings: BlockSettings,
        channels: int,
        window: int | None,
        *,
        z_dim: int | None = None,  # gains of the norms are linear in z
        context_channels: int | None = None,  # first cross-attend to tokens of this width
        residual_gain: float = 1.0,  # on both terms of every sum
    ) -> None:
        super().__init__()
        heads = settings.heads_of(channels)
        self.gain = residual_gain
        self.cross = CrossAttention(channels, context_channels, heads) if context_channels else None
        self.norm1 = Normalization(settings.norm, channels, z_dim)
        self.noise_strength = nn.Parameter(torch.zeros(())) if settings.noise else None
        self.attention = SelfAttention(channels, heads, window, settings.relative_position)
        self.norm2 = Normalization(settings.norm, channels, z_dim)
        self.mlp = MLP(channels, settings.mlp_ratio * channels, settings.activation)

    def forward(
        self,
        x: Tensor,
        *,
        noise: Tensor | None = None,  # (N, L, 1)
        z: Tensor | None = None,  # (N, z_dim)
        context: Tensor | None = None,  # (N, L', C')
        twice: bool = False,  # a second derivative will be taken
    ) -> Tensor:
        """(N, L, C) -> (N, L, C), tokens in the order of tiles."""
        if self.cross is not None and context is not None:
            x = self.cross(x, context)
        x = self._add(x, self.attention(self._noisy(self.norm1(x, z, twice), noise), twice))
        return self._add(x, self.mlp(self.norm2(x, z, twice), twice))

    def read(self, x: Tensor, noise: Tensor | None = None, twice: bool = False) -> Tensor:
        """What `forward` gives for the first token: (N, L, C) -> (N, 1, C)."""
        normed = self._noisy(self.norm1(x, None, twice), noise)
        x = self._add(x[:, :1], self.attention.read(normed))
        return self._add(x, self.mlp(self.norm2(x, None, twice), twice))

    def _noisy(self, x: Tensor, noise: Tensor | None) -> Tensor:
        return x if noise is None or self.noise_strength is None else x + noise * self.noise_strength

    def _add(self, x: Tensor, change: Tensor) -> Tensor:
        return x + change if self.gain == 1.0 else (x + change) * self.gain


class GeneratorStage(nn.Module):
    """Positions and blocks at one resolution, after the change of width that the upsampling leaves to do."""

    def __init__(self, config: TransGANConfig, index: int) -> None:
        super().__init__()
        generator, stage = config.generator, config.generator.stages[index]
        self.upsample = (stage.upsample or generator.upsample) if index else None
        self.low_pass = stage.low_pass
        self.window = generator.window_of(stage.side)
        arriving = generator.arriving_channels(index) if index else stage.channels
        self.change = nn.Linear(arriving, stage.channels) if arriving != stage.channels else None
        placed = index == 0 or generator.positions == "every-stage"
        self.position = nn.Parameter(_small_normal(stage.side**2, stage.channels)) if placed else None
        first = generator.stages[0].channels
        self.blocks = nn.ModuleList(
            Block(
                generator,
                stage.channels,
                self.window,
                z_dim=config.z_dim if generator.modulation == "gain" else None,
                context_channels=first if generator.modulation == "cross-attention" else None,
            )
            for _ in range(stage.depth)
        )

    def forward(self, x: Tensor, noise: Iterator[Tensor | None], z: Tensor, context: Tensor | None) -> Tensor:
        """Tokens of the stage below (N, L', C') -> (N, L, C)."""
        x = self._rise(x)
        x = x if self.position is None else x + self.position
        x = to_tiles(x, self.window)
        for block in self.blocks:
            values = next(noise)
            values = None if values is None else to_tiles(values, self.window)
            x = block(x, noise=values, z=z, context=context)
        return from_tiles(x, self.window)

    def _rise(self, x: Tensor) -> Tensor:
        if self.low_pass:
            x = low_pass(x)
        # A linear map commutes with interpolation and is cheaper below it.
        if self.change is not None and self.upsample != "pixelshuffle":
            x = self.change(x)
        if self.upsample is not None:
            x = upsample(x, self.upsample)
        if self.change is not None and self.upsample == "pixelshuffle":
            x = self.change(x)
        return x


class Generator(nn.Module):
    """z -> image, unbounded unless the config says tanh; as released, it is clamped when saved."""

    def __init__(self, config: TransGANConfig) -> None:
        super().__init__()
        generator = config.generator
        first, last = generator.stages[0], generator.stages[-1]
        self.config = generator
        self.z_shape = (config.z_dim,)
        self.num_classes = len(config.classes)
        self.classes = by_class.embedding(config.classes, config.z_dim)
        self.input = nn.Linear(config.z_dim, first.side**2 * first.channels)
        with_context = generator.modulation == "cross-attention"
        self.context = nn.Linear(config.z_dim, first.side**2 * first.channels) if with_context else None
        self.context_position = (
            nn.Parameter(torch.zeros(first.side**2, first.channels)) if with_context else None
        )
        self.low_input = nn.Linear(3, first.channels) if generator.super_resolution else None
        self.stages = nn.ModuleList(GeneratorStage(config, index) for index in range(len(generator.stages)))
        self.to_rgb = nn.Linear(last.channels, 3 * generator.patch_size**2)
        nn.init.xavier_uniform_(self.to_rgb.weight)
        shapes = [(stage.side**2, 1) for stage in generator.stages for _ in range(stage.depth)]
        self.noise_shapes = tuple(shapes) if generator.noise else ()

    def forward(
        self, z: Tensor, noise: Sequence[Tensor] | None = None, classes: Tensor | None = None
    ) -> Tensor:
        """Make images.

        Args:
            z: (N, z_dim), N(0, 1).
            noise: one (N, L, 1) of N(0, 1) for every (L, 1) in `noise_shapes`; None adds none.
            classes: int64 (N,), of a conditional generator.

        Returns:
            (N, 3, R, R), meant for [-1, 1].
        """
        vectors = by_class.vectors_of(self.classes, classes)
        z = z if vectors is None else z + vectors
        first = self.config.stages[0]
        tokens = self.input(z).view(-1, first.side**2, first.channels)
        return self._paint(tokens, z, noise)

    def example_inputs(self) -> tuple[Any, ...]:
        """Return z of one image, and its class where it has one."""
        return (ramp(self.to_rgb.weight, *self.z_shape), *by_class.example(self.classes))

    def super_resolve(self, images: Tensor) -> Tensor:
        """Make images out of their own means over the first stage's map: the auxiliary task of version 1.

        The release never published its form. Here a linear map of the colours of (N, 3, R, R), averaged to
        the side of the first stage, takes the place of the tokens made of z, and z is zero elsewhere.
        """
        if self.low_input is None:
            raise ValueError("this generator was built without generator.super_resolution")
        side = self.config.stages[0].side
        tokens = self.low_input(to_tokens(F.adaptive_avg_pool2d(images, side)))  # (N, S S, C)
        return self._paint(tokens, images.new_zeros(images.shape[0], *self.z_shape), None)

    def set_locality(self, width: int | None) -> None:
        """Let the last block see only keys at most `width` tokens away; None lifts it (version 1)."""
        stage = cast(GeneratorStage, self.stages[-1])
        if not stage.blocks:
            raise ValueError("locality needs a block in the generator's last stage")
        mask = None
        if width is not None:
            mask = neighbourhood_mask(stage.window, width, self.config.locality).to(self.to_rgb.weight.device)
        cast(Block, stage.blocks[-1]).attention.mask = mask

    def _paint(self, x: Tensor, z: Tensor, noise: Sequence[Tensor] | None) -> Tensor:
        context = None
        if self.context is not None and self.context_position is not None:
            context = self.context(z).view(z.shape[0], *self.context_position.shape) + self.context_position
        given = _noise_or_none(noise, self.noise_shapes)
        for stage in self.stages:
            x = stage(x, given, z, context)
        # Half precision would round colours to steps of half a level of the file.
        with without_autocast(x):
            x = self.to_rgb(x.to(self.to_rgb.weight.dtype))  # (N, S S, 3 P P)
        image = to_map(pixel_shuffle(x, self.config.patch_size))
        image = smooth(image, self.config.patch_size) if self.config.smooth else image
        return image.tanh() if self.config.output == "tanh" else image


class DiscriminatorStage(nn.Module):
    """Pooled tokens of the stage above beside patches of the full image, positions, blocks (section 3.3)."""

    def __init__(self, config: TransGANConfig, index: int) -> None:
        super().__init__()
        discriminator, stage = config.discriminator, config.discriminator.stages[index]
        above = discriminator.stages[index - 1].channels if index else 0
        new = stage.channels - above
        self.side = stage.side
        patch_size = config.resolution // stage.side
        self.embed = PatchEmbed(new, patch_size, stage.overlap) if new else None
        self.position = nn.Parameter(_small_normal(stage.side**2, stage.channels))
        self.windows = discriminator.windows(stage)
        self.blocks = nn.ModuleList(
            _discriminator_block(discriminator, stage.channels, w) for w in self.windows
        )

    def forward(
        self, x: Tensor | None, images: Tensor, noise: Iterator[Tensor | None], twice: bool
    ) -> Tensor:
        """Tokens of the stage above (N, 4L, C') or None, images (N, 3, R, R) -> (N, L, C)."""
        parts = [] if x is None else [pool(x)]
        if self.embed is not None:
            parts.append(self.embed(images))
        x = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
        x = x + self.position
        order = self.side
        for block, window in zip(self.blocks, self.windows, strict=True):
            if window != order:
                x, order = to_tiles(from_tiles(x, order), window), window
            values = next(noise)
            values = None if values is None else to_tiles(values, window)
            x = block(x, noise=values, twice=twice)
        return from_tiles(x, order)


class Discriminator(nn.Module):
    """Image -> one logit, the same for every batch the image is in."""

    def __init__(self, config: TransGANConfig) -> None:
        super().__init__()
        discriminator = config.discriminator
        self.config = discriminator
        self.stages = nn.ModuleList(
            DiscriminatorStage(config, index) for index in range(len(discriminator.stages))
        )
        last = discriminator.stages[-1]
        head = TokenHead if discriminator.head == "cls" else PooledHead
        self.head = head(discriminator, last.channels, config.classes)
        shapes = [(stage.side**2, 1) for stage in discriminator.stages for _ in range(stage.depth)]
        if discriminator.head == "cls":
            shapes += [(last.side**2 + 1, 1)] * discriminator.head_depth
        self.noise_shapes = tuple(shapes) if discriminator.noise else ()
        self.group_size = 1  # no image is compared with others
        self.resolution = config.resolution
        if discriminator.init == "truncated-normal":
            self.apply(_init_linear)

    def forward(
        self,
        images: Tensor,
        noise: Sequence[Tensor] | None = None,
        classes: Tensor | None = None,
        *,
        with_features: bool = False,
    ) -> Any:
        """Judge images.

        Args:
            images: (N, 3, R, R) in [-1, 1], augmented already.
            noise: one (N, L, 1) of N(0, 1) for every (L, 1) in `noise_shapes`; None adds none.
            classes: int64 (N,), of a conditional discriminator.
            with_features: return what the logits are made of beside them.

        Returns:
            (N,) float32 logits, and with_features (N, F).
        """
        # A penalty on the gradient of the images is the one use of a second derivative.
        twice = images.requires_grad and self.head.logit.weight.requires_grad
        given, x = _noise_or_none(noise, self.noise_shapes), None
        for stage in self.stages:
            x = stage(x, images, given, twice)
        logits, features = self.head(x, given, twice, classes)
        logits = logits.float()
        return (logits, features) if with_features else logits

    def example_inputs(self) -> tuple[Any, ...]:
        """Return one image, and its class where it has one."""
        image = ramp(self.head.logit.weight, 3, self.resolution, self.resolution)
        return (image, *by_class.example(self.head.classes))


class TokenHead(nn.Module):
    """A token of its own, without position, reads the others in blocks without relative positions."""

    def __init__(self, discriminator: DiscriminatorConfig, channels: int, classes: Sequence[str]) -> None:
        super().__init__()
        self.token = nn.Parameter(_small_normal(1, channels))
        self.blocks = nn.ModuleList(
            _discriminator_block(discriminator, channels, None) for _ in range(discriminator.head_depth)
        )
        self.norm = Normalization(discriminator.norm, channels)
        self.logit = nn.Linear(channels, 1)
        self.classes = by_class.embedding(classes, channels, zero=True)

    def forward(
        self, x: Tensor, noise: Iterator[Tensor | None], twice: bool, classes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(N, L, C) -> (N,), (N, C)."""
        x = torch.cat([self.token.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)  # (N, 1 + L, C)
        # Nothing looks at the other tokens after the last block.
        *before, last = self.blocks
        for block in before:
            x = block(x, noise=next(noise), twice=twice)
        x = cast(Block, last).read(x, next(noise), twice)
        # In the precision of the weights, as in `PooledHead`.
        with without_autocast(x):
            features = self.norm(x)[:, 0].to(self.logit.weight.dtype)
            logits = by_class.add_projection(self.logit(features), features, self.classes, classes)
        return logits.squeeze(-1), features


class PooledHead(nn.Module):
    """Tokens averaged to a small map, all of it read by an MLP: fast, and blind to no place."""

    def __init__(self, discriminator: DiscriminatorConfig, channels: int, classes: Sequence[str]) -> None:
        super().__init__()
        self.side = discriminator.head_side
        self.hidden = nn.Linear(self.side**2 * channels, channels)
        self.logit = nn.Linear(channels, 1)
        self.classes = by_class.embedding(classes, channels, zero=True)

    def forward(
        self, x: Tensor, _noise: Iterator[Tensor | None], _twice: bool, classes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(N, L, C) -> (N,), and the small map (N, F)."""
        side = round(x.shape[1] ** 0.5)
        pooled = pool(x, side // self.side).flatten(1).to(self.logit.weight.dtype)
        # In the precision of the weights, a hundredth of the work: a finite difference, and a relativistic
        # loss of two logits near 20, would otherwise be differences of bf16 numbers that lie 0.125 apart.
        with without_autocast(x):
            features = F.leaky_relu(self.hidden(pooled), 0.2)
            logits = by_class.add_projection(self.logit(features), features, self.classes, classes)
        return logits.squeeze(-1), pooled


def _discriminator_block(discriminator: DiscriminatorConfig, channels: int, window: int | None) -> Block:
    gain = 0.5**0.5 if discriminator.norm == "none" else 1.0
    return Block(discriminator, channels, window, residual_gain=gain)


def _noise_or_none(
    noise: Sequence[Tensor] | None, shapes: tuple[tuple[int, int], ...]
) -> Iterator[Tensor | None]:
    """Go through the noise inputs of all blocks in turn, or through as many times None."""
    if noise and len(noise) != len(shapes):
        raise ValueError(f"{len(noise)} noise inputs for a network that takes {len(shapes)}")
    return iter(noise) if noise else repeat(None)


def _small_normal(*shape: int) -> Tensor:
    return nn.init.trunc_normal_(torch.empty(shape), std=INIT_STD)


def _init_linear(module: nn.Module) -> None:
    """Weights of 0.02, biases of zero: the released discriminator. The generator keeps the defaults."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(config: TransGANConfig) -> tuple[Generator, Discriminator]:
    """Return a freshly initialised generator and discriminator."""
    return Generator(config), Discriminator(config)
