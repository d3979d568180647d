"""What can be said of a prior over codes, checked without torch.

Sizes are those of Taming Transformers for 256 x 256 images: 24 layers, 16 heads, width 1024 over a grid of 16 x 16.
Codebook, grid and condition belong to the tokenizer and the data; training fills them in.

Letters: h w grid of codes, L = h w codes of an image, M condition tokens before them, K codebook size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gtool.config.schema import Section
from gtool.errors import RecipeError
from gtool.models.vqgan.config import VQGANConfig

Count = Annotated[int, Field(ge=1, le=2**16)]
Side = Annotated[int, Field(ge=1, le=1024)]
Vocabulary = Annotated[int, Field(ge=1, le=2**20)]
Order = Literal["raster", "subsample", "z-curve", "spiral-out", "spiral-in", "alternate", "random"]
Condition = Literal["none", "class", "segmentation", "depth"]

DEFAULT_TOP_K = 100  # most likely codes that are sampled from, unless the user says otherwise
# Why a prior cannot do what it is asked for, and which one can.
ONE_ORDER = "this prior knows one order of codes; one trained with `--set model.prior.orders=any`"
SPATIAL = ("segmentation", "depth")  # one token for each cell of the grid
MLP_RATIO = 4


class PriorConfig(Section):
    """A causal transformer over the condition's tokens and the codes of an image.

    kind: `gpt` is the transformer of Taming Transformers, `image-gpt` its predecessor over the colours of pixels:
    RMS norms, sigmoid GELU, no biases, a head that starts at zero.
    """

    kind: Literal["gpt", "image-gpt"] = "gpt"
    layers: Annotated[int, Field(ge=1, le=256)] = 24
    heads: Annotated[int, Field(ge=1, le=256)] = 16
    width: Annotated[int, Field(ge=1, le=16384)] = 1024
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    codebook_size: Vocabulary = 1024
    grid: Annotated[tuple[Side, Side], Field(strict=False)] = (16, 16)  # h, w
    condition: Condition = "none"
    condition_size: Vocabulary = 1  # ids of their own, 0 to condition_size - 1; 1 for none
    order: Order = "raster"
    # `any`: learned in random orders beside row by row, each token being told the cell that comes next (RAR). Such a
    # prior fills any region and can predict several codes at once.
    orders: Literal["one", "any"] = "one"
    # Released weights: conditions are rows of the table of codes, so that class 207 is code 207.
    shared_embedding: bool = False
    unmasked_prefix: Annotated[int, Field(ge=0)] = 0  # first tokens that see each other in both directions
    positions: Annotated[int, Field(ge=1, le=2**22)] | None = None  # rows of the table

    @model_validator(mode="after")
    def _fits(self) -> PriorConfig:
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} cannot be shared by {self.heads} heads")
        if self.condition == "none" and self.condition_size != 1 and not self.shared_embedding:
            raise ValueError(
                f"condition_size = {self.condition_size}, and there is no condition; leave it out"
            )
        if self.shared_embedding and self.condition_size > self.codebook_size:
            raise ValueError(
                f"shared_embedding needs a codebook of at least condition_size = {self.condition_size}, "
                f"not {self.codebook_size}"
            )
        if self.orders == "any" and (self.order != "raster" or self.shared_embedding):
            raise ValueError(
                'orders = "any" is of priors in the order `raster` whose conditions have ids of their own'
            )
        if self.positions is not None and self.positions < self.tokens:
            raise ValueError(
                f"positions = {self.positions} is fewer than the {self.tokens} tokens of an image"
            )
        if self.unmasked_prefix > self.condition_length:
            raise ValueError(
                f"unmasked_prefix = {self.unmasked_prefix} reaches beyond the {self.condition_length} condition "
                "tokens, so that codes would see what they are to predict"
            )
        return self

    @property
    def length(self) -> int:
        """L, codes of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def condition_ids(self) -> int:
        """Ids that the condition of an image has."""
        return self.length if self.condition in SPATIAL else 1

    @property
    def condition_length(self) -> int:
        """M, condition tokens before the codes."""
        return self.condition_ids if self.orders == "one" else 1

    @property
    def tokens(self) -> int:
        """What the transformer reads at most: the condition and all codes but the last."""
        return self.condition_length + self.length - 1


class PriorPipelineConfig(Section):
    """A prior and its tokenizer, for square images of one resolution.

    condition_tokenizer: turns maps into the prior's condition, where that is not a label for each cell (released
    weights for label maps and depth).
    """

    resolution: Annotated[int, Field(ge=8, le=4096)] = 256
    tokenizer: VQGANConfig = VQGANConfig()
    condition_tokenizer: VQGANConfig | None = None
    prior: PriorConfig = PriorConfig()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Let codebook and grid be those of the tokenizer where nothing is said of them."""
        if not isinstance(values, dict) or isinstance(values.get("prior"), PriorConfig):
            return values
        tokenizer, prior = values.get("tokenizer", {}), values.get("prior", {})
        if isinstance(tokenizer, dict):
            tokenizer = VQGANConfig.model_validate(tokenizer)
        if not (isinstance(tokenizer, VQGANConfig) and isinstance(prior, dict)):
            return values  # refused with the name of the field
        resolution = values.get("resolution", tokenizer.resolution)
        side = resolution // tokenizer.down if isinstance(resolution, int) else 0
        return {**values, "prior": {"codebook_size": tokenizer.codebook_size, "grid": (side, side), **prior}}

    @model_validator(mode="after")
    def _fits(self) -> PriorPipelineConfig:
        down = self.tokenizer.down
        if self.resolution % down:
            raise ValueError(
                f"resolution {self.resolution} is no multiple of {down}, the pixels a side of the tokenizer's cells"
            )
        side = self.resolution // down
        if self.prior.grid != (side, side):
            raise ValueError(
                f"prior.grid = {list(self.prior.grid)}: the tokenizer makes {side} x {side} codes of "
                f"{self.resolution} px"
            )
        if self.prior.codebook_size != self.tokenizer.codebook_size:
            raise ValueError(
                f"prior.codebook_size = {self.prior.codebook_size}: the tokenizer has {self.tokenizer.codebook_size}"
            )
        return self

    def at_resolution(self, resolution: int) -> PriorPipelineConfig:
        """Return the same networks over the grid of another resolution.

        Raises:
            ValueError: no multiple of the cells' side.
        """
        values = self.model_dump()
        del values["prior"]["grid"]
        return PriorPipelineConfig.model_validate(values | {"resolution": resolution})


@dataclass(frozen=True)
class SamplingParams:
    """How codes are sampled.

    temperature: logits are divided by it; 0 takes the most likely code, so that images of one condition are equal.
    top_k: only the k most likely codes can be sampled.
    top_p: nucleus sampling (Holtzman et al. 2020): only the fewest most likely codes whose probabilities, after
        top_k, sum to p or more.
    guidance: logits move from those without a condition to those with it and beyond, by this factor in the mean of all
        codes (classifier-free guidance, Ho and Salimans 2022); 1 takes those with it as they are.
    steps: forward passes in which all codes are sampled, several at once; None samples them one by one.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: float = 1.0
    steps: int | None = None

    def check(self, config: PriorConfig) -> None:
        """Raise RecipeError for values outside of their range, or that a prior cannot follow."""
        codebook_size = config.codebook_size
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise RecipeError(f"temperature {self.temperature:g}: must be 0 (the most likely code) or more")
        if self.top_k is not None and not 1 <= self.top_k <= codebook_size:
            raise RecipeError(
                f"top-k {self.top_k}: the codebook has {codebook_size} codes; use 1 to {codebook_size}"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise RecipeError(f"top-p {self.top_p:g}: must be above 0 and at most 1")
        if not (math.isfinite(self.guidance) and self.guidance >= 1):
            raise RecipeError(f"guidance {self.guidance:g}: must be 1 (off) or more")
        if self.guidance != 1 and config.condition == "none":
            raise RecipeError(f"guidance {self.guidance:g}: this prior has no condition to follow")
        if self.steps is not None and not 1 <= self.steps <= config.length:
            raise RecipeError(
                f"steps {self.steps}: an image has {config.length} codes; use 1 to {config.length}"
            )
        if self.steps is not None and config.orders == "one":
            raise RecipeError(f"steps {self.steps}: {ONE_ORDER} predicts several codes at once")


def drops_conditions(meta: Mapping[str, Any]) -> bool:
    """Say whether the prior of a weights file was trained to do without its condition, at times."""
    recipe = meta.get("recipe")
    prior = recipe.get("prior") if isinstance(recipe, dict) else None
    return isinstance(prior, dict) and prior.get("condition_dropout", 0.0) != 0
