"""From a photo to a painting: a brush and a stroke predictor, loaded once, paint pictures of any size.

    painting = paint_image("photo.jpg", detail=0.7, brush="dry")
    painting.to_image(1024).save("painted.png")

`gtool.strokes.painting` has the algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gtool.errors import GToolError
from gtool.io.image import to_rgb_or_rgba
from gtool.io.photo import Photo, photo_of, read_ink, read_photo, shrink
from gtool.io.pictures import Pixels
from gtool.models.paint_transformer.config import PATCH
from gtool.models.paint_transformer.proposals import load_predictor
from gtool.paint.checks import DEFAULT_SIDE, find_brush_mark, parse_color
from gtool.runtime.device import make_compute
from gtool.strokes.brush import HALF_HEIGHT, HALF_WIDTH, MARKS, Brush, from_ink, load_brush, make_brush
from gtool.strokes.canvas import Painting
from gtool.strokes.painting import deepest_level, paint
from gtool.strokes.palette import choose_palette, nearest_in_palette
from gtool.strokes.proposals import Predictor
from gtool.strokes.refinement import MOST_REFINED, refine
from gtool.strokes.saliency import saliency
from gtool.strokes.settings import Method, PaintSettings

DEFAULT_DETAIL = 0.5
DEFAULT_LEVEL = 4  # at the default detail: strokes look equally large, whatever the size of the photo
MOST_ACROSS = 64  # of the longest strokes along the longer side: the first ones have to cover all of it
MIN_SIDE_SEEN = 64  # pixels of the shorter side, which a photo keeps when it is reduced for painting


def paint_image(
    image: Image.Image | Pixels | Path | str,
    *,
    method: Method = "predictor",
    brush: str = "flat",
    detail: float = DEFAULT_DETAIL,
    canvas_color: str = "auto",
    max_strokes: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Painting:
    """Paint an image with the weights that come with gtool.

    Args:
        image: a picture, a file, or uint8 (H, W, 3) or (H, W, 4).
        method, brush, detail, canvas_color, max_strokes, seed, device: as the options of `gtool paint`.

    Raises:
        GToolError: a photo, brush or colour that cannot be used.
    """
    if isinstance(image, Path | str):
        photo = read_photo(Path(image), DEFAULT_SIDE)
    else:
        pillow = image if isinstance(image, Image.Image) else Image.fromarray(image)
        photo = photo_of(to_rgb_or_rgba(pillow, "image"))
    settings = PaintSettings(
        method=method, ground=parse_color(canvas_color), max_strokes=max_strokes, seed=seed
    )
    compute = make_compute(device, "auto")
    predictor = load_predictor(None, compute) if method == "predictor" else None
    return Painter(settings, detail, open_brush(brush).to(compute.device), predictor).paint(photo)


@dataclass(frozen=True)
class Painter:
    """What paints: loaded once, for pictures of any size."""

    settings: PaintSettings  # but for the levels, which follow from the detail and the size of a picture
    detail: float  # in [0, 1]
    brush: Brush  # on the device that paints
    predictor: Predictor | None  # None for the methods without a network
    palette: Tensor | int | None = (
        None  # the only colours (K, 3) to paint with, or how many to choose for a photo
    )
    limits: tuple[float, float] = (0.0, math.inf)  # lengths of strokes, in pixels of a picture

    def paint(
        self, photo: Photo, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Painting:
        """Paint a photo; `progress` is told how many passes of how many are done."""
        height, width = photo.size
        ground = self.settings.ground or photo.mean_color()
        settings = replace(self.settings_for(height, width), ground=ground)
        target = self.target(photo.over(ground), settings.levels)
        interest = saliency(target)
        painting = paint(target, settings, self.brush, self.predictor, progress=progress, interest=interest)
        if not settings.keep_all and (settings.max_strokes or math.inf) <= MOST_REFINED:
            painting = refine(painting, target, settings, interest=interest, progress=progress)
        if self.palette is not None:
            palette = self.palette
            if isinstance(palette, int):
                palette = choose_palette(photo.over(ground), palette)
            painting = replace(painting, colors=nearest_in_palette(painting.colors, palette))
        return replace(painting, aspect=width / height)

    def settings_for(self, height: int, width: int) -> PaintSettings:
        """Return how a picture of a size is painted; GToolError where no strokes may be long enough for it."""
        shortest, longest = (min(1.0, limit / max(height, width)) for limit in self.limits)
        if longest < 1 / MOST_ACROSS:
            least = math.ceil(max(height, width) / MOST_ACROSS)
            raise GToolError(f"--max-stroke: at least {least} px in a painting of {max(height, width)} px")
        levels = level_for(self.detail, deepest_level(height, width, PATCH))
        if shortest > 0:  # patches smaller than a stroke are of no use
            levels = min(levels, math.floor(math.log2(1 / shortest)))
        return replace(self.settings, levels=levels, shortest=shortest, longest=longest)

    def target(self, pixels: Pixels, levels: int) -> Tensor:
        """Reduce a picture (H, W, 3) to twice the pixels of its last level: (3, h, w) in [0, 1] on the device."""
        height, width, _ = pixels.shape
        thin = math.ceil(MIN_SIDE_SEEN * max(height, width) / min(height, width))
        reduced = shrink(pixels, max(2 * PATCH << levels, thin))
        target = torch.from_numpy(np.ascontiguousarray(reduced.transpose(2, 0, 1)))
        return target.to(self.brush.atlas.device).float() / 255


def open_brush(brush: str) -> Brush:
    """Return a built-in brush, or make one of the picture of a mark that a file or folder holds.

    Raises:
        GToolError: no such brush, no picture, or no ink in it.
    """
    mark = find_brush_mark(brush)
    if mark is None:
        return load_brush(brush, marks=MARKS)
    ink = read_ink(mark)
    # The picture is cut to its ink: it gets the room around it that built-in marks have.
    rows, columns = (
        round(side * (0.5 / half - 1) / 2)
        for side, half in zip(ink.shape, (HALF_HEIGHT, HALF_WIDTH), strict=True)
    )
    name = f"{Path(brush).expanduser().resolve().name}/"
    return make_brush(name, from_ink(np.pad(ink, ((rows, rows), (columns, columns)))))


def level_for(detail: float, deepest: int) -> int:
    """Return the last level for a detail in [0, 1]: 0 is broad, 1 follows the photo to its pixels.

    The middle is DEFAULT_LEVEL for every photo that is large enough.
    """
    usual = min(DEFAULT_LEVEL, deepest)
    if detail <= DEFAULT_DETAIL:
        first, last, share = min(1, usual), usual, detail / DEFAULT_DETAIL
    else:
        share = (detail - DEFAULT_DETAIL) / (1 - DEFAULT_DETAIL)
        first, last = usual, max(deepest, usual + 1)
    return math.floor(first + (last - first) * share + 0.5)
