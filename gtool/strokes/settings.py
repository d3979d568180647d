"""How an image is painted: the choices and their names. Imports no torch: the command line checks them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

BRUSHES = ("flat", "round", "dry", "marker", "wash", "chalk")  # each is drawn by `gtool.strokes.brush.draw`
PATCH_SIZE = 32  # pixels a side of the patches that the stroke predictors look at

Method = Literal["predictor", "greedy", "random"]
Selection = Literal["gain", "decision"]
METHODS: tuple[Method, ...] = get_args(Method)
SELECTIONS: tuple[Selection, ...] = get_args(Selection)


@dataclass(frozen=True, kw_only=True)
class PaintSettings:
    """How `gtool.strokes.painting.paint` paints."""

    levels: int = 4  # number of the finest level; at level k a patch is 1 / 2^k of the image's longer side
    strokes_per_patch: int = 8  # at most
    method: Method = "predictor"  # who proposes strokes: a network, the best of random strokes, or chance
    select: Selection = (
        "gain"  # of the predictor's proposals: by the error they remove, or by its own decision
    )
    keep_all: bool = False  # paint also strokes that bring the canvas no nearer to the image
    max_strokes: int | None = None  # of the whole painting
    shortest: float = 0.0  # longer side of a stroke, in shares of the longer side of the picture
    longest: float = 1.0
    opacity: float = 1.0  # of the paint, in [0, 1]
    ground: tuple[float, float, float] | None = None  # of the canvas, RGB in [0, 1]; None: mean of the image
    seed: int = 0
    patch_size: int = PATCH_SIZE
