"""What is written of a painting: the picture, its strokes as JSON and as vectors, and a timelapse of its making."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gtool import __version__, console
from gtool.io.photo import Photo, save_photo
from gtool.io.pictures import Pixels
from gtool.io.video import save_animation
from gtool.nn.resample import resample
from gtool.paint.plotter import save_plot
from gtool.paint.svg import save_svg
from gtool.strokes.canvas import Painting, draw_on, sample_under, to_pixels, uncovered
from gtool.strokes.renderer import depths
from gtool.strokes.saliency import saliency
from gtool.strokes.stroke_file import save_strokes

ANIMATION_SIDE = 720  # pixels of an animation's longer side, at most
ORDERING_SIDE = 512  # and at which it is decided what is background
REGIONS = (0.6, 1.2)  # bounds of the interest of background, middle and subject
FINER = 3  # level from which strokes are painted region by region
HOLD_SECONDS = 1.5  # that its end is shown
UNCOVERED_SIDE = 1024  # pixels of the longer side at which bare canvas is measured
# Strokes count by their area to this power in a timelapse. By area itself (1) the few broad strokes of the beginning
# would take most of the frames, by number (0) the many fine ones of the end; so, a frame changes between 2 and 25 % of
# the pixels of a painting of 2,765 strokes, and half of the frames show its first 160.
EVENNESS = 0.75


def write_files(
    made: Mapping[str, Path],
    painting: Painting,
    size: tuple[int, int],
    timing: tuple[int, float],
    as_plot: bool = False,
    *,
    photo: Photo | None = None,
    text: Mapping[str, str] | None = None,
) -> Pixels:
    """Write every file that is wanted of a painting and return its pixels, uint8 (H, W, 3) of this size.

    Args:
        made: the files, by `out`, `stroke_file`, `svg` and `animation`; the first has to be there.
        timing: number of frames of the animation, and frames a second.
        as_plot: centre lines in the SVG, for a plotter.
        photo: whose transparency and colour profile are kept.
        text: what a PNG says of how it was made, beside what the painting knows.
    """
    height, width = size
    pixels: Pixels = painting.render(height, width).cpu().numpy()
    said = {"Software": f"gtool {__version__}", "strokes": str(len(painting)), "brush": painting.brush.name}
    alpha, icc = (None, None) if photo is None else (photo.alpha, photo.icc)
    if alpha is not None and alpha.shape != size:
        alpha = np.asarray(Image.fromarray(alpha).resize((width, height), Image.Resampling.BICUBIC))
    save_photo(made["out"], pixels, alpha=alpha, icc=icc, text=said | dict(text or {}))
    if path := made.get("stroke_file"):
        save_strokes(path, painting)
    if path := made.get("svg"):
        (save_plot if as_plot else save_svg)(path, painting, max(height, width))
    if path := made.get("animation"):
        _save_timelapse(path, painting, max(height, width), *timing)
    return pixels


def background_first(painting: Painting) -> Painting:
    """Put strokes in an order in which a person paints, with the same pixels in the end.

    First what covers all of the canvas, large to small; then the finer strokes, those of the background before those
    of the subject. A stroke never comes before one that it may cover.
    """
    height, width = painting.size(ORDERING_SIDE)
    rendered = painting.render(height, width).permute(2, 0, 1).float() / 255
    interest = resample(saliency(rendered)[None], (height, width))[0]
    geometry = to_pixels(painting.shape_params, ORDERING_SIDE)
    region = 1 + torch.bucketize(sample_under(geometry, interest)[0].mean(-1), geometry.new_tensor(REGIONS))
    region[painting.levels < FINER] = 0
    order = depths(geometry, height, width, region.cpu().numpy()).argsort(kind="stable")
    return painting[torch.from_numpy(order).to(geometry.device)]


def _save_timelapse(path: Path, painting: Painting, side: int, frames: int, fps: float) -> None:
    longer = min(side, ANIMATION_SIDE)
    if longer < side:
        console.notice(f"{path}: animations have at most {ANIMATION_SIDE} px a side")
    with console.progress("animation") as update:

        def pictures() -> Iterator[Pixels]:
            for number, frame in enumerate(
                timelapse(background_first(painting), *painting.size(longer), frames)
            ):
                update(number, frames, str(path))
                picture: Pixels = frame.cpu().numpy()
                yield picture

        save_animation(path, pictures(), fps, HOLD_SECONDS)


def timelapse(painting: Painting, height: int, width: int, frames: int) -> Iterator[Tensor]:
    """Yield the bare ground, the painting as it grows by about even amounts, and the finished painting.

    Every frame paints its new strokes over the one before. There are at most `frames`, fewer where there are not so
    many strokes; 1 is the finished painting alone.

    Yields:
        uint8 (height, width, 3) on the device of the strokes, each a tensor of its own.
    """
    if frames < 1:
        raise ValueError(f"a timelapse of {frames} frames")
    geometry = to_pixels(painting.shape_params, max(height, width))
    canvas = geometry.new_tensor(painting.ground).expand(height, width, 3).contiguous()
    for done, count in pairwise([0, *frame_counts(painting, frames)]):
        new = slice(done, count)
        draw_on(canvas, geometry[new], painting.colors[new], painting.brush, painting.opacity)
        yield canvas.mul(255).round_().to(torch.uint8)


def frame_counts(painting: Painting, frames: int) -> list[int]:
    """Return how many strokes each frame shows: from 0, or all if there is one frame, rising to all of them."""
    total = len(painting)
    frames = min(frames, total + 1)
    if frames == 1:
        return [total]
    # No more of a stroke is seen than fits into the picture.
    sides = painting.shape_params[:, 2:4].double().cpu().clamp(min=1e-3, max=1)
    done = (sides.prod(dim=1) ** EVENNESS).cumsum(0)
    shares = torch.linspace(0, 1, frames, dtype=torch.double)
    counts = torch.searchsorted(done, shares * done[-1])
    # At least one stroke more in every frame, and enough left for those to come.
    number = torch.arange(frames)
    counts = (counts - number).cummax(0).values + number
    counts = torch.minimum(counts, total - (frames - 1 - number))
    return [0, *counts[1:-1].tolist(), total]


def measure(painting: Painting, photo: Photo, pixels: Pixels) -> dict[str, float]:
    """Compare a painting with its photo over the same ground: l1 in [0, 1]; uncovered, the share of bare canvas.

    pixels: of the painting, which is rendered anew where they have another size than the photo.
    """
    target = photo.over(painting.ground)
    if pixels.shape != target.shape:
        pixels = painting.render(*photo.size).cpu().numpy()
    rows = range(0, len(pixels), 256)  # at a time: a large picture in 16 bits would need twice its memory
    sums = [np.abs(pixels[row : row + 256].astype(np.int16) - target[row : row + 256]).sum() for row in rows]
    difference = sum(map(int, sums)) / pixels.size / 255
    bare = uncovered(painting, *painting.size(min(max(photo.size), UNCOVERED_SIDE)))
    return {"l1": round(difference, 5), "uncovered": round(bare, 5)}
