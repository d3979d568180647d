"""How an image is painted: the choices and their names. Imports no torch: the command line checks them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

BRUSHES = ("flat", "round", "dry")  # each is drawn by `gtool.strokes.brush.draw`
PATCH_SIZE = 32  # pixels a side of the patches that the stroke predictors look at

Method = Literal["predictor", "greedy", "random"]
Selection = Literal["gain", "decision"]
METHODS: tuple[Method, ...] = get_args(Method)
SELECTIONS: tuple[Selection, ...] = get_args(Selection)


@dataclass(frozen=True, kw_only=True)
class PaintSettings:
    """How `gtool.strokes.painting.paint` paints.

    levels: number of the finest level; at level k a patch is 1 / 2^k of the image's longer side.
    strokes_per_patch: at most.
    method: who proposes strokes: a trained predictor, the best of random strokes, or chance.
    select: how the predictor's proposals are chosen: by the error they take away, or by its own decision.
    keep_all: paint also strokes that bring the canvas no nearer to the image.
    max_strokes: of the whole painting; None for no limit.
    opacity: of the paint, in [0, 1].
    ground: colour of the canvas, RGB in [0, 1]; None for the mean of the image.
    patch_size: pixels a side of what the predictor looks at.
    """

    levels: int = 4
    strokes_per_patch: int = 8
    method: Method = "predictor"
    select: Selection = "gain"
    keep_all: bool = False
    max_strokes: int | None = None
    opacity: float = 1.0
    ground: tuple[float, float, float] | None = None
    seed: int = 0
    patch_size: int = PATCH_SIZE
