"""The schema of TransGAN: which networks a recipe asks for, checked without importing torch.

TransGAN: Two Pure Transformers Can Make One Strong GAN, and That Can Scale Up (Jiang, Chang, Wang 2021),
sections 3.1 to 3.4, and its released code. The defaults are the CIFAR-10 networks as released;
`preset = "church256"` in a `[model]` table starts from another released model, and keys beside it override.

Where paper and code disagree the code is followed, because released weights have to fit: layer norm on
CIFAR-10, 4 heads at every width. What is ours: `head_width`, `bilinear`, `relative_position = "local"`,
`modulation = "gain"`, `norm = "layer"`, `positions = "first-stage"`, `smooth`, `head = "pooled"`, `init = "fan-in"`:
the networks that train on a CPU (preset `cpu32`).

Sides and patch sizes are in tokens and pixels; a FLOP is one multiply or one add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from gtool.config.schema import ClassNames, Section

Count = Annotated[int, Field(ge=1, le=2**16)]
Norm = Literal["ln", "layer", "pn", "none"]
Activation = Literal["gelu", "leaky-relu"]
RelativePosition = Literal["learned", "local", "none"]
Upsample = Literal["pixelshuffle", "bicubic", "bilinear"]

RESOLUTIONS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# Channels a head that `at_resolution` leaves to generator stages it adds, where `head_width` is not given.
NARROWEST_HEAD = 16
LARGEST_MAP = 64  # side up to which `at_resolution` adds maps to a discriminator before it enlarges patches
# A stage: a file from a stranger must not keep a reader building for ever.
MOST_BLOCKS = 64


class GeneratorStageConfig(Section):
    """Blocks at one resolution of the generator; `upsample` says how the stage below comes up to it."""

    side: Count
    channels: Count
    depth: Annotated[int, Field(ge=0, le=MOST_BLOCKS)]
    upsample: Upsample | None = None  # None: the generator's
    low_pass: bool = False  # before upsampling: bicubic x4, then 4x4 means (CelebA-HQ release)


class DiscriminatorStageConfig(Section):
    """Blocks at one resolution of the discriminator; the patch size is resolution / side."""

    side: Count
    channels: Count
    depth: Annotated[int, Field(ge=0, le=MOST_BLOCKS)]
    full_blocks: Annotated[int, Field(ge=0)] = 0  # how many of the last blocks attend over the whole map
    overlap: bool = False  # patches twice as wide as their distance (CelebA-HQ release, first stage)


class BlockSettings(Section):
    """What both networks say about their blocks."""

    stages: tuple[Any, ...]
    heads: Count = 4  # at every width, as released
    head_width: Count | None = None  # channels per head; replaces `heads`
    window: Count = 16  # side of the tiles of grid self-attention, or the next smaller divisor of the map's
    full_attention_until: Count = 32  # maps of at most this side are attended whole
    relative_position: RelativePosition = "learned"
    norm: Norm = "ln"
    activation: Activation = "gelu"
    mlp_ratio: Count = 4
    noise: bool = False  # one learned strength a block on N(0, 1) a token

    def heads_of(self, channels: int) -> int:
        """Return the number of heads at a width."""
        return channels // self.head_width if self.head_width else self.heads

    def window_of(self, side: int) -> int:
        """Return the side of the square in which the tokens of a map attend to each other."""
        if side <= self.full_attention_until:
            return side
        return max(size for size in range(1, self.window + 1) if side % size == 0)

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        unit = self.head_width or self.heads
        for stage in self.stages:
            if stage.channels % unit:
                what = f"{stage.channels} channels cannot be shared by heads"
                raise ValueError(f"stage {stage.side}: {what} ({unit} does not divide it)")
        return self


class GeneratorConfig(BlockSettings):
    """z -> tokens of the first stage -> image."""

    stages: Annotated[tuple[GeneratorStageConfig, ...], Field(strict=False, min_length=1)] = (
        GeneratorStageConfig(side=8, channels=1024, depth=5),
        GeneratorStageConfig(side=16, channels=256, depth=4),
        GeneratorStageConfig(side=32, channels=64, depth=2),
    )
    upsample: Upsample = "pixelshuffle"
    # Absolute positions are learned at every stage, as released, or at the first alone: a free number for every
    # pixel of the last stage is a fixed pattern of noise that a small discriminator does not see.
    positions: Literal["every-stage", "first-stage"] = "every-stage"
    # cross-attention: every block first looks at tokens made of z (CelebA-HQ release, "self-modulation");
    # gain: the gains of the norms are linear in z.
    modulation: Literal["none", "cross-attention", "gain"] = "none"
    output: Literal["linear", "tanh"] = "linear"
    patch_size: Count = 1  # pixels a side that each token of the last stage paints
    smooth: bool = False  # filter the image, so that no pattern repeats with the patches
    locality: Literal["neighbourhood", "band"] = "neighbourhood"  # what set_locality masks: paper v1, code v1
    super_resolution: bool = False  # build the input of the auxiliary task of version 1

    @model_validator(mode="after")
    def _stages_fit(self) -> GeneratorConfig:
        for below, stage in zip(self.stages, self.stages[1:], strict=False):
            if stage.side != 2 * below.side:
                raise ValueError(
                    f"generator.stages: side {stage.side} after {below.side}; each doubles the one before"
                )
            if (stage.upsample or self.upsample) == "pixelshuffle" and below.channels % 4:
                raise ValueError(
                    f"generator.stages: pixelshuffle needs a multiple of 4 channels, not {below.channels}"
                )
        if self.stages[0].upsample or self.stages[0].low_pass:
            raise ValueError("generator.stages: the first stage has nothing below it to upsample or low_pass")
        if self.smooth and self.patch_size == 1:
            raise ValueError(
                "generator.smooth filters patches; set generator.patch_size above 1, or leave it out"
            )
        if self.modulation == "gain" and self.norm == "none":
            raise ValueError(f"generator.modulation = 'gain' needs a norm per token, not '{self.norm}'")
        return self

    @property
    def resolution(self) -> int:
        """Pixels a side of what the stages make."""
        return self.stages[-1].side * self.patch_size

    def arriving_channels(self, index: int) -> int:
        """Return the channels that reach a stage if nothing but the resampling changes them."""
        kind = self.stages[index].upsample or self.upsample
        below = self.stages[index - 1].channels
        return below // 4 if kind == "pixelshuffle" else below


class DiscriminatorConfig(BlockSettings):
    """Image -> tokens of several patch sizes -> one logit."""

    stages: Annotated[tuple[DiscriminatorStageConfig, ...], Field(strict=False, min_length=1)] = (
        DiscriminatorStageConfig(side=16, channels=288, depth=3),
        DiscriminatorStageConfig(side=8, channels=384, depth=3),
    )
    # cls: a token reads the others in `head_depth` blocks; pooled: an MLP on tokens averaged to head_side^2.
    head: Literal["cls", "pooled"] = "cls"
    head_depth: Annotated[int, Field(ge=1, le=MOST_BLOCKS)] = 1
    head_side: Count = 4
    # Of linear layers: deviation 0.02 as released, or the library's, uniform in +-1 / sqrt(inputs).
    init: Literal["truncated-normal", "fan-in"] = "truncated-normal"

    @model_validator(mode="after")
    def _stages_fit(self) -> DiscriminatorConfig:
        for above, stage in zip(self.stages, self.stages[1:], strict=False):
            if 2 * stage.side != above.side:
                raise ValueError(
                    f"discriminator.stages: side {stage.side} after {above.side}; each halves the one before"
                )
            if stage.channels < above.channels:
                raise ValueError(
                    "discriminator.stages: channels cannot fall; a stage adds to the pooled ones"
                )
        for stage in self.stages:
            if stage.full_blocks > stage.depth:
                raise ValueError(f"discriminator stage {stage.side}: full_blocks exceeds depth")
        if self.head == "pooled" and self.stages[-1].side % self.head_side:
            raise ValueError(
                f"discriminator.head_side = {self.head_side} does not divide side {self.stages[-1].side}"
            )
        return self

    def windows(self, stage: DiscriminatorStageConfig) -> list[int]:
        """Return the window side of every block of a stage."""
        tiled = stage.depth - stage.full_blocks
        return [self.window_of(stage.side)] * tiled + [stage.side] * stage.full_blocks


class TransGANConfig(Section):
    """A generator and a discriminator for square RGB images of one resolution."""

    resolution: Annotated[int, Field(ge=8, le=1024)] = 32
    z_dim: Count = 256
    classes: ClassNames = ()  # names by number, of the data; none: images are of no class
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, values: Any) -> Any:
        """Put the given keys on top of the preset they name."""
        if not isinstance(values, Mapping) or "preset" not in values:
            return values
        rest = {key: value for key, value in values.items() if key != "preset"}
        name = values["preset"]
        if name not in PRESETS:
            raise ValueError(f"model.preset = {name!r} does not exist; known: {', '.join(PRESETS)}")
        return _merge(PRESETS[name], rest)

    @model_validator(mode="after")
    def _resolution_can_be_made(self) -> TransGANConfig:
        made = self.generator.resolution
        if made != self.resolution:
            sides = ", ".join(str(stage.side) for stage in self.generator.stages)
            raise ValueError(
                f"resolution {self.resolution} cannot be made: "
                f"generator.stages of sides {sides} make {made} x {made}"
            )
        for stage in self.discriminator.stages:
            if self.resolution % stage.side:
                raise ValueError(
                    f"resolution {self.resolution} cannot be cut into {stage.side} x {stage.side} patches "
                    f"by discriminator.stages"
                )
            if stage.overlap and (self.resolution // stage.side) % 2:
                raise ValueError(f"discriminator stage {stage.side}: overlap needs an even patch size")
        return self

    @classmethod
    def preset(cls, name: str) -> TransGANConfig:
        """Return a released or recommended configuration by name.

        Raises:
            ValueError: no such preset.
        """
        return cls.model_validate({"preset": name})

    def at_resolution(self, resolution: int) -> TransGANConfig:
        """Return the same kind of networks for another resolution.

        The generator keeps its first stages and drops or gains stages at its end, each new one at the width
        that the upsampling gives but not below the width of a head; the discriminator drops or gains stages
        at its start, of equal patch size, and enlarges its patches beyond maps of 64 x 64. Resolutions of 3
        x 2^k start from 12 where those of 2^k start from 8. What exceeds a side of 32 attends in tiles.

        Raises:
            ValueError: a resolution that these stages cannot reach.
        """
        if resolution == self.resolution:
            return self
        if resolution not in RESOLUTIONS:
            known = ", ".join(map(str, RESOLUTIONS))
            raise ValueError(f"resolution {resolution} cannot be made by these stages; possible: {known}")
        values = self.model_dump()
        values["resolution"] = resolution
        values["generator"]["stages"] = _generator_stages(self.generator, resolution)
        values["discriminator"]["stages"] = _discriminator_stages(self, resolution)
        for network in ("generator", "discriminator"):
            values[network]["full_attention_until"] = min(32, values[network]["full_attention_until"])
        try:
            return TransGANConfig(**values)
        except ValidationError as bad:
            raise ValueError(bad.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Put one nested table on another; lists are replaced, not joined."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _odd(size: int) -> int:
    """Return the odd factor of a size: 1 or 3, of those that are usual."""
    return size // (size & -size)


def _rescaled(stages: Sequence[Any], odd: int) -> list[dict[str, Any]]:
    """Return stages whose sides, 2^k or 1.5 x 2^k, have this odd factor."""
    values = [stage.model_dump() for stage in stages]
    for stage in values:
        if _odd(stage["side"]) != odd:
            stage["side"] = stage["side"] * 3 // 2 if odd == 3 else stage["side"] * 2 // 3
    return values


def _generator_stages(generator: GeneratorConfig, resolution: int) -> list[dict[str, Any]]:
    wanted = resolution // generator.patch_size
    stages = [s for s in _rescaled(generator.stages, _odd(resolution)) if s["side"] <= wanted]
    while stages and stages[-1]["side"] < wanted:
        last = stages[-1]
        shrink = 4 if (last["upsample"] or generator.upsample) == "pixelshuffle" else 2
        unit = generator.head_width or generator.heads
        floor = generator.head_width or NARROWEST_HEAD * generator.heads
        channels = max(last["channels"] // shrink // unit * unit, min(floor, last["channels"]))
        depth = min(2, max(1, last["depth"]))
        stages.append(last | {"side": 2 * last["side"], "channels": channels, "depth": depth})
    if not stages or stages[-1]["side"] != wanted:
        raise ValueError(
            f"resolution {resolution} cannot be made from a first stage of {generator.stages[0].side}"
        )
    return stages


def _discriminator_stages(config: TransGANConfig, resolution: int) -> list[dict[str, Any]]:
    discriminator = config.discriminator
    stages = _rescaled(discriminator.stages, _odd(resolution))
    missing = resolution.bit_length() - config.resolution.bit_length()
    unit = discriminator.head_width or discriminator.heads
    while missing > 0 and 2 * stages[0]["side"] <= LARGEST_MAP:  # larger patches from there on
        first = stages[0]
        channels = max(unit, first["channels"] * 3 // 4 // unit * unit)
        new = {"channels": channels, "depth": min(2, first["depth"]), "full_blocks": 0}
        stages.insert(0, first | new | {"side": 2 * first["side"]})
        first["overlap"] = False
        missing -= 1
    # A lone stage keeps its map, its patches shrink.
    stages = stages[min(max(0, -missing), len(stages) - 1) :]
    largest = max(LARGEST_MAP, discriminator.stages[0].side)
    while stages[0]["side"] > min(largest, resolution // 2):
        for stage in stages:
            stage["side"] //= 2
    return stages


# Configurations by name, as plain values for the `[model]` table.


def _rows(rows: list[tuple[Any, ...]], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    return [dict(zip(keys, row, strict=False)) for row in rows]


_GENERATOR = ("side", "channels", "depth", "upsample", "low_pass")
_DISCRIMINATOR = ("side", "channels", "depth", "full_blocks", "overlap")


def _generator_256(first_depth: int, low_pass: bool) -> list[dict[str, Any]]:
    rows: list[tuple[Any, ...]] = [
        (8, 1024, first_depth),
        (16, 1024, 4, "bicubic"),
        (32, 1024, 4, "bicubic"),
        (64, 256, 4),
    ]
    rows += [(128, 64, 4, None, low_pass), (256, 16, 4, None, low_pass)]
    return _rows(rows, _GENERATOR)


def _version_1(channels: int, depths: tuple[int, int, int]) -> dict[str, Any]:
    """A size of the first version: a plain one-scale discriminator of depth 7, no relative positions."""
    sides = [(8, channels, depths[0]), (16, channels // 4, depths[1]), (32, channels // 16, depths[2])]
    return {
        "resolution": 32,
        "z_dim": channels,
        "generator": {"stages": _rows(sides, _GENERATOR), "relative_position": "none", "locality": "band"},
        "discriminator": {
            "stages": [{"side": 8, "channels": 384, "depth": 0}],
            "relative_position": "none",
            "head_depth": 7,
        },
    }


# Released by VITA-Group/TransGAN (exps/*.py and models_search/), the sizes of version 1, and ours.
PRESETS: dict[str, dict[str, Any]] = {
    "cifar10": {"resolution": 32, "z_dim": 256},
    "stl10": {
        "resolution": 48,
        "z_dim": 512,
        "generator": {
            "stages": _rows([(12, 1024, 7), (24, 256, 5), (48, 64, 3)], _GENERATOR),
            "full_attention_until": 48,
            "norm": "pn",
        },
        "discriminator": {"stages": _rows([(24, 288, 3), (12, 384, 3)], _DISCRIMINATOR), "norm": "pn"},
    },
    "church256": {
        "resolution": 256,
        "z_dim": 512,
        "generator": {"stages": _generator_256(5, False), "norm": "pn", "noise": True},
        "discriminator": {"stages": _rows([(64, 288, 3, 1), (32, 336, 3), (16, 384, 4)], _DISCRIMINATOR)},
    },
    "celebahq256": {
        "resolution": 256,
        "z_dim": 512,
        "generator": {
            "stages": _generator_256(0, True),
            "norm": "pn",
            "noise": True,
            "modulation": "cross-attention",
        },
        "discriminator": {
            "stages": _rows([(128, 96, 3, 0, True), (64, 192, 3, 1), (32, 384, 4)], _DISCRIMINATOR),
            "window": 4,
            "relative_position": "none",
        },
    },
    "v1-s": _version_1(384, (5, 2, 2)),
    "v1-m": _version_1(512, (5, 2, 2)),
    "v1-l": _version_1(768, (5, 2, 2)),
    "v1-xl": _version_1(1024, (5, 4, 2)),
    "cpu32": {
        "resolution": 32,
        "z_dim": 64,
        "generator": {
            "stages": _rows([(8, 128, 2), (16, 64, 2), (32, 32, 1)], _GENERATOR),
            "upsample": "bilinear",
            "positions": "first-stage",
            "head_width": 32,
            "full_attention_until": 16,
            "norm": "layer",
            "modulation": "gain",
            "relative_position": "local",
        },
        "discriminator": {
            "stages": [{"side": 8, "channels": 128, "depth": 3, "overlap": True}],
            "head_width": 32,
            "norm": "layer",
            "activation": "leaky-relu",
            "head": "pooled",
            "init": "fan-in",
        },
    },
}
