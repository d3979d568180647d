"""What is written of a painting: the picture, its strokes as JSON and as vectors, and an animation of its making."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import repeat
from pathlib import Path

import numpy as np

from gtool import __version__, console
from gtool.errors import printable
from gtool.io.animation import save_animation
from gtool.io.photo import Photo, Pixels, save_photo
from gtool.paint.paths import PaintingFiles
from gtool.paint.svg import save_svg
from gtool.paint.timelapse import timelapse
from gtool.strokes.canvas import Painting, uncovered
from gtool.strokes.stroke_file import save_strokes

ANIMATION_SIDE = 720  # pixels of an animation's longer side, at most
HOLD_SECONDS = 1.5  # that its end is shown
UNCOVERED_SIDE = 1024  # pixels of the longer side at which bare canvas is measured


def write_files(
    files: PaintingFiles,
    painting: Painting,
    size: tuple[int, int],
    timing: tuple[int, float],
    *,
    photo: Photo | None = None,
    text: Mapping[str, str] | None = None,
) -> Pixels:
    """Write every file that is wanted of a painting and return its pixels, uint8 (H, W, 3) of this size.

    Args:
        timing: number of frames of the animation, and frames a second.
        photo: whose transparency and colour profile are kept.
        text: what a PNG says of how it was made, beside what the painting knows.
    """
    height, width = size
    pixels: Pixels = painting.render(height, width).cpu().numpy()
    made = {"Software": f"gtool {__version__}", "strokes": str(len(painting))}
    made |= {"brush": printable(painting.brush.name), **(text or {})}
    alpha, icc = (None, None) if photo is None else (photo.alpha, photo.icc)
    save_photo(files.picture, pixels, alpha=alpha, icc=icc, text=made)
    if path := files.made.get("stroke_file"):
        save_strokes(path, painting)
    if path := files.made.get("svg"):
        save_svg(path, painting, max(height, width))
    if path := files.made.get("animation"):
        _save_timelapse(path, painting, min(max(height, width), ANIMATION_SIDE), *timing)
    return pixels


def _save_timelapse(path: Path, painting: Painting, longer: int, frames: int, fps: float) -> None:
    with console.progress("animation") as update:

        def pictures() -> Iterator[Pixels]:
            for number, frame in enumerate(timelapse(painting, *painting.size(longer), frames)):
                update(number, frames, printable(str(path)))
                picture: Pixels = frame.cpu().numpy()
                yield picture
            # Loops begin again at once: the finished painting is held for a while.
            yield from repeat(picture, round(HOLD_SECONDS * fps))

        save_animation(path, pictures(), fps)


def measure(painting: Painting, photo: Photo, pixels: Pixels) -> dict[str, float]:
    """Compare a painting with its photo over the same ground: l1 in [0, 1]; uncovered, the share of bare canvas."""
    target = photo.over(painting.ground)
    rows = range(0, len(pixels), 256)  # at a time: a large picture in 16 bits would need twice its memory
    sums = [np.abs(pixels[row : row + 256].astype(np.int16) - target[row : row + 256]).sum() for row in rows]
    difference = sum(map(int, sums)) / pixels.size / 255
    bare = uncovered(painting, *painting.size(min(max(photo.size), UNCOVERED_SIDE)))
    return {"l1": round(difference, 5), "uncovered": round(bare, 5)}
