"""What `gtool paint` needs torch for: brush and network, loaded once, and the pictures made with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gtool import __version__, console
from gtool.errors import DataError
from gtool.io.photo import Photo, save_photo, shrink
from gtool.models.paint_transformer import proposals
from gtool.models.paint_transformer.config import PATCH
from gtool.paint.outputs import Job, shown
from gtool.runtime.device import Compute, make_compute
from gtool.strokes import painting as engine
from gtool.strokes.brush import HALF_HEIGHT, HALF_WIDTH, Brush, from_ink, load_brush, make_brush
from gtool.strokes.canvas import Painting, uncovered
from gtool.strokes.settings import Method, PaintSettings, Selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gtool.io.photo import Pixels

DEFAULT_DETAIL = 0.5
USUAL_LEVEL = 4  # at the default detail: the same strokes for the eye, whatever the size of the photo
LEAST_SIDE = 64  # pixels that a photo keeps across while it is looked at
ANIMATION_SIDE = 720  # pixels of an animation's longer side, at most
HOLD_SECONDS = 1.5  # that its end is shown
UNCOVERED_SIDE = 1024  # at which bare canvas is measured


@dataclass(frozen=True, kw_only=True)
class Style:
    """How every picture of a call is painted."""

    method: Method = "predictor"
    select: Selection = "gain"
    weights: Path | None = None
    brush: str = "flat"
    ink: NDArray[np.float32] | None = None  # of a brush of the user's own
    opacity: float = 1.0
    ground: tuple[float, float, float] | None = None  # None: the mean of the photo
    detail: float = DEFAULT_DETAIL
    max_strokes: int | None = None
    keep_all: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Animation:
    """How the making of a picture is shown."""

    frames: int
    fps: float


@dataclass(frozen=True)
class Studio:
    """A style with its brush and network on a device."""

    style: Style
    compute: Compute
    brush: Brush
    predict: proposals.Predict | None

    def paint(self, photo: Photo, progress: Callable[[int, int], None]) -> Painting:
        """Paint a photo; the strokes are a function of its pixels, the style and the weights."""
        height, width = photo.size
        ground = self.style.ground or photo.mean_color()
        plan = replace(self.plan(height, width), ground=ground)
        target = self.see(photo.over(ground), plan)
        made = engine.paint(target, plan, self.brush, self.predict, progress=progress)
        return replace(made, aspect=width / height)

    def plan(self, height: int, width: int) -> PaintSettings:
        """Return how a picture of a size is painted."""
        style = self.style
        return PaintSettings(
            levels=level_for(style.detail, engine.deepest_level(height, width)),
            method=style.method,
            select=style.select,
            keep_all=style.keep_all,
            max_strokes=style.max_strokes,
            opacity=style.opacity,
            ground=style.ground,
            seed=style.seed,
        )

    def see(self, pixels: Pixels, plan: PaintSettings) -> torch.Tensor:
        """Return what is looked at of a picture (H, W, 3): (3, h, w) in [0, 1] on the device."""
        height, width, _ = pixels.shape
        seen = shrink(pixels, _side_seen(height, width, plan.levels))
        target = torch.from_numpy(np.ascontiguousarray(seen.transpose(2, 0, 1)))  # (3, h, w)
        return target.to(self.compute.device).float() / 255


def open_studio(style: Style, device: str, precision: str, remark: str = "") -> Studio:
    """Load brush and network, and say what paints.

    Raises:
        GToolError: a device that is not there, weights that cannot be used.
    """
    compute = make_compute(device, precision)
    predict = proposals.load_predictor(style.weights, compute) if style.method == "predictor" else None
    brush = _brush(style.brush, style.ink)
    network = "" if style.weights is None else f" {shown(style.weights)}, {compute.precision},"
    console.notice(f"{style.method},{network} {shown(style.brush)} brush; {compute.describe()}{remark}")
    return Studio(style, compute, brush.to(compute.device), predict)


def _brush(name: str, ink: NDArray[np.float32] | None) -> Brush:
    """Load a built-in brush, or make one of a mark cut to its ink: it gets the room around it that ours have."""
    if ink is None:
        return load_brush(name)
    rows, columns = (
        round(side * (0.5 / half - 1) / 2)
        for side, half in zip(ink.shape, (HALF_HEIGHT, HALF_WIDTH), strict=True)
    )
    return make_brush(name, from_ink(np.pad(ink, ((rows, rows), (columns, columns)))))


def level_for(detail: float, deepest: int) -> int:
    """Return the last level for a detail in [0, 1]: 0 is broad, 1 follows the photo to its pixels.

    The middle is USUAL_LEVEL for every photo that is large enough, so that strokes are seen at any size.
    """
    usual = min(USUAL_LEVEL, deepest)
    first, last = (min(1, usual), usual) if detail <= DEFAULT_DETAIL else (usual, max(deepest, usual + 1))
    share = (
        detail / DEFAULT_DETAIL
        if detail <= DEFAULT_DETAIL
        else (detail - DEFAULT_DETAIL) / (1 - DEFAULT_DETAIL)
    )
    return math.floor(first + (last - first) * share + 0.5)


def _side_seen(height: int, width: int, levels: int) -> int:
    """Pixels of the longer side that are enough to look at: twice those of the last level."""
    across = math.ceil(LEAST_SIDE * max(height, width) / min(height, width))
    return max(2 * PATCH << levels, across)


def open_strokes(
    path: Path, said: Mapping[str, Any], max_strokes: int | None, device: str
) -> tuple[Painting, Brush]:
    """Read a stroke file, with what was said about brush, opacity and ground in place of what it says.

    Raises:
        GToolError: no stroke file, a brush of somebody's own, a device that is not there.
    """
    from gtool.strokes.stroke_file import load_strokes

    painting = load_strokes(path, _brush(said["brush"], said.get("ink")) if "brush" in said else None)
    changed = {key: said[key] for key in ("opacity", "ground") if key in said}
    painting = replace(painting if max_strokes is None else painting.first(max_strokes), **changed)
    painting = painting.to(make_compute(device, "fp32").device)
    return painting, painting.brush


# Files.


def write_files(
    job: Job,
    painting: Painting,
    brush: Brush,
    size: tuple[int, int],
    *,
    animation: Animation,
    photo: Photo | None = None,
    text: Mapping[str, str] | None = None,
) -> Pixels:
    """Write every file of a job and return the painting's pixels, uint8 (H, W, 3).

    Args:
        job: where.
        painting: on the device of the brush.
        brush: what to render with.
        size: height and width of the painting.
        animation: how its making is shown, where the job wants it.
        photo: whose transparency and colour profile are kept.
        text: what a PNG says of how it was made, beside what the painting knows.

    Raises:
        GToolError: a file cannot be written.
    """
    height, width = size
    pixels = np.asarray(painting.render(height, width).cpu().numpy())
    alpha, icc = (None, None) if photo is None else (photo.alpha, photo.icc)
    made = {
        "Software": f"gtool {__version__}",
        "strokes": str(len(painting)),
        "brush": shown(painting.brush.name),
    }
    save_photo(job.out, pixels, alpha=alpha, icc=icc, text=made | dict(text or {}))
    if job.strokes is not None:
        from gtool.strokes.stroke_file import save_strokes

        save_strokes(job.strokes, painting)
    if job.svg is not None:
        from gtool.paint.svg import save_svg

        save_svg(job.svg, painting, max(height, width))
    if job.animation is not None:
        _animate(job.animation, painting, brush, min(max(height, width), ANIMATION_SIDE), animation)
    return pixels


def _animate(path: Path, painting: Painting, brush: Brush, longer: int, animation: Animation) -> None:
    from gtool.io.animation import save_animation
    from gtool.paint.timelapse import making_of

    height, width = painting.size(longer)
    with console.progress("making-of") as update:

        def frames() -> Iterator[Pixels]:
            made = making_of(painting, height, width, animation.frames)
            for number, frame in enumerate(made):
                update(number, animation.frames, shown(path))
                picture = np.asarray(frame.cpu().numpy())
                yield picture
            # Films begin anew at once: the finished painting is looked at for a while.
            yield from repeat(picture, round(HOLD_SECONDS * animation.fps))

        save_animation(path, frames(), animation.fps)


def measure(painting: Painting, brush: Brush, photo: Photo, pixels: Pixels) -> dict[str, float]:
    """Compare a painting with its photo over the same ground: l1 in [0, 1]; uncovered, the share of bare canvas."""
    target = photo.over(painting.ground)
    rows = range(0, len(pixels), 256)  # at a time: a large picture in 16 bits would need twice its memory
    sums = [np.abs(pixels[row : row + 256].astype(np.int16) - target[row : row + 256]).sum() for row in rows]
    difference = sum(map(int, sums)) / pixels.size / 255
    bare = uncovered(painting, *painting.size(min(max(photo.size), UNCOVERED_SIDE)))
    return {"l1": round(difference, 5), "uncovered": round(bare, 5)}


@contextmanager
def enough_memory(source: Path) -> Iterator[None]:
    """Name the picture that is too large for the memory of this machine.

    Raises:
        DataError: there was not enough.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as bad:
        text = str(bad).lower()
        if not isinstance(bad, MemoryError) and "out of memory" not in text and "allocate memory" not in text:
            raise
        raise DataError(f"{shown(source)}: not enough memory; lower --max-side or --detail") from None
