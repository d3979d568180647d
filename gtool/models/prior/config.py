"""What can be said of a prior over codes, checked without torch.

Sizes are those of Taming Transformers for 256 x 256 images: 24 layers, 16 heads, width 1024 over a grid of 16 x 16.
Codebook, grid and condition belong to the tokenizer and the data; training fills them in.

Letters: h w grid of codes, L = h w codes of an image, M condition tokens before them, K codebook size.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=1024)]
Vocabulary = Annotated[int, Field(ge=1, le=2**20)]
Order = Literal["raster", "subsample", "z-curve", "spiral-out", "spiral-in", "alternate", "random"]
Condition = Literal["none", "class", "segmentation", "depth"]

SPATIAL = ("segmentation", "depth")  # one token for each cell of the grid
MLP_RATIO = 4


class PriorConfig(BaseModel):
    """A causal transformer over the condition's tokens and the codes of an image.

    kind: `gpt` is the transformer of Taming Transformers, `image-gpt` its predecessor over the colours of pixels:
    RMS norms, sigmoid GELU, no biases, a head that starts at zero.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

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
    # Released weights: conditions are rows of the table of codes, so that class 207 is code 207.
    shared_embedding: bool = False
    unmasked_prefix: Annotated[int, Field(ge=0)] = 0  # first tokens that see each other in both directions
    positions: Count | None = None  # rows of the table of positions; None: as many as can be used

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
    def condition_length(self) -> int:
        """M, condition tokens before the codes."""
        return self.length if self.condition in SPATIAL else 1

    @property
    def tokens(self) -> int:
        """What the transformer reads at most: the condition and all codes but the last."""
        return self.condition_length + self.length - 1


def num_parameters(config: PriorConfig) -> int:
    """Return how many numbers the prior learns."""
    width, biased = config.width, config.kind == "gpt"
    norm = width * (2 if biased else 1)
    block = (4 + 2 * MLP_RATIO) * width**2 + 2 * norm + (biased and (5 + MLP_RATIO) * width)
    conditions = 0 if config.shared_embedding else config.condition_size
    embeddings = (conditions + config.codebook_size + (config.positions or config.tokens)) * width
    return config.layers * block + norm + embeddings + config.codebook_size * width


def flops(config: PriorConfig) -> dict[str, float]:
    """Return the floating-point operations of one image, forward only, as in training (matrix products).

    A causal score is counted for every pair that can be seen.
    """
    return {"prior": span_flops(config, 0, config.tokens, config.length)}


def span_flops(config: PriorConfig, before: int, tokens: int, predicted: int) -> float:
    """Return the operations of running `tokens` tokens after `before` cached ones, with logits of `predicted` codes."""
    width = config.width
    linear = tokens * (4 + 2 * MLP_RATIO) * width**2
    seen = tokens * before + tokens * (tokens + 1) / 2
    return 2.0 * (config.layers * (linear + 2 * seen * width) + predicted * width * config.codebook_size)
