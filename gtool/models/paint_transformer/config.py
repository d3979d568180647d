"""The config of Paint Transformer's stroke predictors; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gtool.config.schema import Section

Count = Annotated[int, Field(ge=1, le=2**16)]

PATCH = 32  # pixels a side that both predictors look at
CELLS = 8  # a side of a patch, each with a stroke of the dense predictor


class PaintTransformerConfig(Section):
    """A network that looks at a patch of the photo and of the canvas and proposes strokes.

    architecture: `dense` proposes one stroke in each of 8 x 8 cells, its centre within 1.5 cells of the middle;
    `released` is the network of the paper, in which 8 learned queries find the strokes.
    """

    resolution: Literal[32] = 32  # of a patch, whatever the size of the painting
    architecture: Literal["dense", "released"] = "dense"
    # dense only
    width: Annotated[int, Field(ge=8, le=1024)] = 192
    heads: Count = 6
    depth: Annotated[int, Field(ge=1, le=24)] = 4
    mlp_ratio: Count = 4
    stem_width: Annotated[int, Field(ge=8, le=512)] = 64
    grid: Literal[4, 8] = 8  # tokens a side; with 4, each has the strokes of four cells
    # released only
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _heads_fit(self) -> PaintTransformerConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be shared by {self.heads} heads")
        return self

    @property
    def proposals(self) -> int:
        """Strokes that one look proposes."""
        return CELLS**2 if self.architecture == "dense" else 8

    def at_resolution(self, resolution: int) -> PaintTransformerConfig:
        """Return the same networks; patches have one size.

        Raises:
            ValueError: another resolution than that of a patch.
        """
        if resolution != PATCH:
            raise ValueError(f"patches have {PATCH} pixels a side, whatever the size of the painting")
        return self
