"""What can be said of a GANsformer, checked without torch.

Defaults are those released for the paper's data sets but CLEVR, with the paper's duplex attention in the place of
learned centroids (`attention = "centroid"` brings them back), and no dropout of attention.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gtool.config.schema import ClassNames, Section

Count = Annotated[int, Field(ge=1, le=2**16)]
Width = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
SMALLEST = 4  # side of the first map


class MappingConfig(Section):
    """z -> w: one network that all local components share, and one for the global."""

    layers: Annotated[int, Field(ge=1, le=64)] = 8  # residual: an even number; one more follows either way
    residual: bool = True
    multiplier: Positive = 0.01  # of the learning rate
    self_attention: bool = True  # of the local components, before each block or layer
    normalize_global: bool = (
        True  # the global component's z; off in networks converted from the first release
    )

    @model_validator(mode="after")
    def _fits(self) -> MappingConfig:
        if self.residual and self.layers % 2:
            raise ValueError(f"mapping.layers = {self.layers} is odd, and residual blocks have two layers")
        return self


class SynthesisConfig(Section):
    """w -> image: the convolutions of StyleGAN2, an attention layer after each."""

    channel_base: Annotated[int, Field(ge=1, le=2**20)] = 32768  # channels are channel_base / side,
    channel_max: Width = 512  # but no more than these
    architecture: Literal["resnet", "skip"] = "resnet"
    stem: Literal["constant", "latent"] = "constant"  # latent: 4 x 4 made of the global component
    style: bool = True  # modulated convolutions; off in the release for CLEVR
    noise: bool = True
    last_conv: bool = True  # one more, without bias, noise, activation and attention, before the colours
    rgb_gain: Positive = 1.0  # of the image: 1 begins with twice the contrast of pictures
    start: Annotated[int, Field(ge=4)] = 4  # sides of maps with attention
    end: Annotated[int, Field(ge=4)] = 128
    heads: Annotated[int, Field(ge=1, le=64)] = 1
    iterations: Annotated[int, Field(ge=1, le=16)] = 1  # of k-means, or of gathering
    integration: Literal["mul", "add", "both"] = "mul"
    norm: Literal["layer", "instance", "none"] = "layer"
    positions: Literal["sinus", "fourier", "trainable2d", "none"] = "sinus"
    position_dim: Annotated[int, Field(ge=4, le=1024)] | None = None  # None: component_dim
    component_positions: bool = True
    gate_pixels: bool = False
    dropout: Share = 0.0  # of attention; 0.12 in the release
    attention_gain: Positive = 1.0  # of what attention adds, at the start

    @model_validator(mode="after")
    def _fits(self) -> SynthesisConfig:
        if self.position_dim is not None and self.position_dim % 4:
            raise ValueError(f"synthesis.position_dim = {self.position_dim} is no multiple of 4")
        if self.end < self.start:
            raise ValueError(f"synthesis.end = {self.end} is below synthesis.start = {self.start}")
        return self


class DiscriminatorConfig(Section):
    """The residual network of StyleGAN2."""

    channel_base: Annotated[int, Field(ge=1, le=2**20)] = 32768
    channel_max: Width = 512
    group_size: Annotated[int, Field(ge=1, le=64)] = 4  # images whose spread is a feature; 1 leaves it out
    group_channels: Annotated[int, Field(ge=1, le=64)] = 1


class GANsformerConfig(Section):
    """A generator and a discriminator for square RGB images of one resolution."""

    resolution: Annotated[int, Field(ge=8, le=1024)] = 256
    attention: Literal["duplex", "simplex", "centroid", "none"] = "duplex"  # none: StyleGAN2
    components: Annotated[int, Field(ge=1, le=256)] = 16  # local ones; a global one comes after them
    component_dim: Width = 32  # of each, as of the global one; without attention, of all of them together
    classes: ClassNames = ()  # names by number, of the data; none: images are of no class
    mapping: MappingConfig = MappingConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()

    @model_validator(mode="after")
    def _fits(self) -> GANsformerConfig:
        if self.resolution & (self.resolution - 1):
            raise ValueError(f"resolution {self.resolution} cannot be made: it is no power of two")
        group_channels, last = self.discriminator.group_channels, self.discriminator_channels(SMALLEST)
        if last % group_channels:
            raise ValueError(
                f"discriminator.group_channels = {group_channels} does not divide the {last} channels of side 4"
            )
        heads = self.synthesis.heads
        if self.attention == "none":
            if not self.synthesis.style and self.synthesis.stem == "constant":
                raise ValueError(
                    "without attention, with synthesis.style = false and a constant stem nothing reads the latents; "
                    "set synthesis.style = true (StyleGAN2) or synthesis.stem = 'latent' (a plain GAN)"
                )
            return self
        for side in self.attended_sides:
            if (channels := self.channels(side)) % heads:
                raise ValueError(
                    f"synthesis.heads = {heads} does not divide the {channels} channels of side {side}"
                )
        if not self.attended_sides:
            raise ValueError(
                f"no map of resolution {self.resolution} lies between synthesis.start = {self.synthesis.start} "
                f"and synthesis.end = {self.synthesis.end}; attention = 'none' leaves attention out"
            )
        if self.component_dim % heads and self.mapping.self_attention:
            raise ValueError(
                f"synthesis.heads = {heads} does not divide model.component_dim = {self.component_dim}"
            )
        if self.position_dim % 4 and self.synthesis.positions != "none":
            raise ValueError(
                f"component_dim = {self.component_dim} is no multiple of 4; set synthesis.position_dim"
            )
        return self

    @property
    def z_shape(self) -> tuple[int, int]:
        """Shape of one latent: the local components with the global one last, or one alone."""
        if self.attention == "none":
            return (1, self.components * self.component_dim)
        return (self.components + 1, self.component_dim)

    @property
    def sides(self) -> list[int]:
        """Sides of the generator's maps, 4 to the resolution."""
        return [SMALLEST << step for step in range((self.resolution // SMALLEST).bit_length())]

    @property
    def attended_sides(self) -> list[int]:
        """Those with attention after each convolution."""
        if self.attention == "none":
            return []
        return [side for side in self.sides if self.synthesis.start <= side <= self.synthesis.end]

    @property
    def position_dim(self) -> int:
        """Width of the encoding of places, 0 for none."""
        return 0 if self.synthesis.positions == "none" else self.synthesis.position_dim or self.component_dim

    @property
    def num_ws(self) -> int:
        """Layers of the generator that take a w: the convolutions, the last image layer, and a stem that is made."""
        return 2 * len(self.sides) + self.synthesis.last_conv + (self.synthesis.stem == "latent")

    def channels(self, side: int) -> int:
        """Channels of the generator at a side."""
        return min(max(1, self.synthesis.channel_base // side), self.synthesis.channel_max)

    def discriminator_channels(self, side: int) -> int:
        """Channels of the discriminator at a side."""
        return min(max(1, self.discriminator.channel_base // side), self.discriminator.channel_max)

    def at_resolution(self, resolution: int) -> GANsformerConfig:
        """Return the same kind of networks for another resolution.

        Raises:
            ValueError: no power of two, or out of range.
        """
        return GANsformerConfig.model_validate(self.model_dump() | {"resolution": resolution})
