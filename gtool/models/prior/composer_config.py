"""What can be said of a prior together with the tokenizer whose codes it predicts, checked without torch.

Weights of a prior hold both, so that one file is enough to make pictures. The prior's codebook and grid are those of
the tokenizer at this resolution; they need not be written down.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gtool.models.prior.config import PriorConfig, span_flops
from gtool.models.vqgan.config import VQGANConfig


class ComposerConfig(BaseModel):
    """A prior and its tokenizer, for square images of one resolution.

    condition_tokenizer: turns maps into the prior's condition, where that is not a label for each cell (released
    weights for label maps and depth).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

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
        tokenizer = values.get("tokenizer", {})
        if isinstance(tokenizer, dict):
            tokenizer = VQGANConfig.model_validate(tokenizer)
        side = int(values.get("resolution", tokenizer.resolution)) // tokenizer.down
        known = {"codebook_size": tokenizer.codebook_size, "grid": (side, side)}
        return {**values, "prior": known | dict(values.get("prior", {}))}

    @model_validator(mode="after")
    def _fits(self) -> ComposerConfig:
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

    def at_resolution(self, resolution: int) -> ComposerConfig:
        """Return the same networks over the grid of another resolution.

        Raises:
            ValueError: no multiple of the cells' side.
        """
        values = self.model_dump()
        del values["prior"]["grid"]
        return ComposerConfig.model_validate(values | {"resolution": resolution})


def flops(config: ComposerConfig) -> dict[str, float]:
    """Return the floating-point operations of one image, forward only: of the prior, since codes are computed once."""
    prior = config.prior
    return {"prior": span_flops(prior, 0, prior.tokens, prior.length)}
