"""What can be said of a tokenizer, checked without torch.

Defaults are the released tokenizer for ImageNet, FacesHQ and custom data (configs/*.yaml of
CompVis/taming-transformers: 16 x 16 codes of an image of 256 px, 1024 entries), but for the textbook quantizer loss:
`quantizer.legacy = true` is the released one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gtool.config.schema import Section

Width = Annotated[int, Field(ge=1, le=4096)]
Count = Annotated[int, Field(ge=1, le=64)]
Multipliers = Annotated[tuple[Count, ...], Field(strict=False, min_length=1, max_length=10)]
Size = Annotated[int, Field(ge=2, le=2**18)]


class QuantizerConfig(Section):
    """Vectors -> codes.

    codebook: the nearest entry. cosine: the nearest in direction. gumbel: the largest of logits, for released weights;
    it cannot be trained.
    """

    kind: Literal["codebook", "cosine", "gumbel"] = "codebook"
    size: Size = 1024  # entries
    dim: Width = 256  # of an entry; 8 for cosine is the usual choice
    beta: Annotated[float, Field(ge=0)] = 0.25  # of the commitment of vectors to entries
    legacy: bool = False  # beta on the entries' term, not on the commitment's, as every released model


class PatchDiscriminatorConfig(Section):
    """PatchGAN: convolutions that judge overlapping patches, 70 px wide with three layers."""

    channels: Width = 64
    layers: Annotated[int, Field(ge=1, le=6)] = 3  # each but the first and last convolution has a norm
    # batch: as released; judges an image by its batch, and differs between one process and two
    norm: Literal["batch", "group", "none"] = "batch"


class VQGANConfig(Section):
    """An encoder, a quantizer and a decoder, with the discriminator that they are trained against.

    kind: `vqgan` has convolutions; `palette` is the tokenizer of image-GPT, a palette of colours and nothing else.
    """

    kind: Literal["vqgan", "palette"] = "vqgan"
    resolution: Annotated[int, Field(ge=4, le=4096)] = 256  # of training; other sizes work as well
    image_channels: Annotated[int, Field(ge=1, le=1024)] = 3  # 1: depth; n: maps of n labels, a channel each
    channels: Width = 128  # times a multiplier, at each level
    multipliers: Multipliers = (1, 1, 2, 2, 4)
    blocks: Count = 2  # at each level of the encoder
    decoder_blocks: Count | None = None  # None: blocks + 1, as released
    middle_blocks: Annotated[int, Field(ge=0, le=8)] = 2  # at the lowest level of both
    middle_attention: bool = True  # after the first of them
    # Of levels with attention after each block, for an image of `resolution`.
    attention_sides: Annotated[tuple[int, ...], Field(strict=False)] = (16,)
    norm_groups: Count = 32
    z_channels: Width = 256  # between networks and quantizer
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    quantizer: QuantizerConfig = QuantizerConfig()
    discriminator: PatchDiscriminatorConfig = PatchDiscriminatorConfig()
    palette_size: Size = 512  # palette only

    @model_validator(mode="after")
    def _fits(self) -> VQGANConfig:
        if self.kind == "palette":
            if self.image_channels != 3:
                raise ValueError(f"a palette is of colours: image_channels = {self.image_channels} is not 3")
            return self
        if self.resolution % self.down:
            raise ValueError(
                f"resolution {self.resolution} cannot be halved {len(self.multipliers) - 1} times: multipliers has "
                f"{len(self.multipliers)} levels"
            )
        for channels in {self.channels, *self.level_channels}:
            if channels % self.norm_groups:
                raise ValueError(f"norm_groups = {self.norm_groups} does not divide {channels} channels")
        if unknown := [side for side in self.attention_sides if side not in self.sides]:
            raise ValueError(f"attention_sides: {unknown[0]} is no side of a level; those are {self.sides}")
        if self.middle_attention and not self.middle_blocks:
            raise ValueError("middle_attention comes after the first of middle_blocks, and there is none")
        return self

    @property
    def down(self) -> int:
        """Pixels a side that one code stands for."""
        return 1 if self.kind == "palette" else 2 ** (len(self.multipliers) - 1)

    @property
    def codes_side(self) -> int:
        """Codes a side of an image of `resolution`."""
        return self.resolution // self.down

    @property
    def codebook_size(self) -> int:
        """How many codes there are."""
        return self.palette_size if self.kind == "palette" else self.quantizer.size

    @property
    def sides(self) -> list[int]:
        """Sides of the levels, the finest first."""
        return [self.resolution >> level for level in range(len(self.multipliers))]

    @property
    def level_channels(self) -> list[int]:
        """Channels of the levels, the finest first."""
        return [self.channels * multiplier for multiplier in self.multipliers]

    @property
    def blocks_up(self) -> int:
        """Blocks at each level of the decoder."""
        return self.blocks + 1 if self.decoder_blocks is None else self.decoder_blocks

    def at_resolution(self, resolution: int) -> VQGANConfig:
        """Return the same networks for another size, attention at the same levels.

        Raises:
            ValueError: a size that cannot be halved often enough, or out of range.
        """
        sides = [side * resolution // self.resolution for side in self.attention_sides]
        return VQGANConfig.model_validate(
            self.model_dump() | {"resolution": resolution, "attention_sides": tuple(sides)}
        )
