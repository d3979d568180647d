"""How steady the strokes of a clip are where the camera moves: pans over photographs, painted frame by frame.

    python -m tests.benchmarks.paint_clip --photo FILE [--clips pan diagonal still] [--frames 48] [--sheet FOLDER]

Clips are windows of a photo, made smaller: `pan` moves by 3 pixels a frame to the right, `diagonal` by 1.3 and 0.7,
`still` has the noise of a sensor alone (standard deviation 5/255). Printed for each:

change    mean absolute difference of consecutive painted frames in [0, 1], the one before moved by the true pan
l1        mean absolute difference from the frames; edge, in the tenth of the picture at the side that comes into view
strokes, new, shots, seconds   means over the frames; number of paintings begun; CPU seconds a frame

Measured, `pan` over a portrait, 48 frames, one thread: change 0.0016 (0.0160 when what had changed was painted
anew in every frame), l1 0.0192 (0.0185), at the side that comes into view 0.0184 (0.0193), 5,087 strokes (3,413), one
painting begun (24), 2.3 s a frame (2.0) on a busy machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from gtool.models.paint_transformer.proposals import load_predictor
from gtool.paint.painter import DEFAULT_DETAIL, Painter, open_brush
from gtool.paint.video import FramePainter
from gtool.runtime.device import make_compute
from gtool.strokes.settings import PaintSettings

HEIGHT, WIDTH = 288, 384
STEPS = {
    "pan": (3.0, 0.0),
    "diagonal": (1.3, 0.7),
    "still": (0.0, 0.0),
}  # pixels a frame, to the right and down
NOISE = 5 / 255
MARGIN = 4  # pixels of the border that are not compared


def frames(photo: Image.Image, clip: str, count: int) -> Iterator[Tensor]:
    """Yield the frames (3, H, W) in [0, 1] of a clip."""
    right, down = STEPS[clip]
    scale = min(photo.width / (WIDTH + count * right), photo.height / (HEIGHT + count * down))
    for number in range(count):
        left, top = scale * right * number, scale * down * number
        box = (left, top, left + scale * WIDTH, top + scale * HEIGHT)
        picture = np.asarray(photo.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box))
        frame = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float() / 255
        if clip == "still":
            noise = np.random.default_rng(number).normal(0, NOISE, frame.shape)
            frame = (frame + torch.from_numpy(noise).float()).clamp(0, 1)
        yield frame


def moved(picture: Tensor, right: float, down: float) -> Tensor:
    """Return a picture (3, H, W) as a camera that moves so many pixels sees it; what comes into view repeats edges."""
    _, height, width = picture.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5 + down, torch.arange(width) + 0.5 + right, indexing="ij")
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], dim=-1)
    return F.grid_sample(picture[None], grid[None], "bicubic", "border", align_corners=False)[0]


def measure(painter: Painter, photo: Image.Image, clip: str, count: int, sheet: Path | None) -> list[float]:
    """Paint a clip and return the columns of its row."""
    right, down = STEPS[clip]
    made = FramePainter(painter.settings_for(HEIGHT, WIDTH), painter.brush, painter.predictor)
    before, rows = None, []
    inside = slice(MARGIN, HEIGHT - MARGIN - round(down)), slice(MARGIN, WIDTH - MARGIN - round(right))
    for number, frame in enumerate(frames(photo, clip, count)):
        started = time.process_time()
        pixels = made.paint(frame).render(HEIGHT, WIDTH)
        seconds = time.process_time() - started
        painted = pixels.permute(2, 0, 1).float() / 255
        error = (painted - frame).abs()
        change = 0.0
        if before is not None:
            change = float((painted - moved(before, right, down)).abs()[:, *inside].mean())
        edge = float(error[:, :, -WIDTH // 10 :].mean())
        rows.append((change, float(error.mean()), edge, made.strokes, made.new_strokes, seconds))
        before = painted
        if sheet is not None:
            both = torch.cat([frame, painted], dim=1).clamp(0, 1)
            Image.fromarray((both.permute(1, 2, 0) * 255).byte().numpy()).save(
                sheet / f"{clip}-{number:02}.png"
            )
    later = np.mean(rows[1:], axis=0)  # the first frame is painted as a photo is
    return [*later[:5].tolist(), float(made.shots), float(later[5])]


def main() -> None:
    """Paint the clips and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--clips", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--sheet", type=Path, help="a folder for every frame above its painting")
    arguments = parser.parse_args()
    compute = make_compute("cpu", "auto")
    painter = Painter(PaintSettings(), DEFAULT_DETAIL, open_brush("flat"), load_predictor(None, compute))
    photo = Image.open(arguments.photo).convert("RGB")
    if arguments.sheet:
        arguments.sheet.mkdir(parents=True, exist_ok=True)
    print(
        f"{'':10}"
        + "".join(f"{n:>9}" for n in ("change", "l1", "edge", "strokes", "new", "shots", "seconds"))
    )
    for clip in arguments.clips:
        *errors, strokes, new, shots, seconds = measure(
            painter, photo, clip, arguments.frames, arguments.sheet
        )
        print(
            f"{clip:10}"
            + "".join(f"{value:9.4f}" for value in errors)
            + f"{strokes:9.0f}{new:9.0f}{shots:9.0f}{seconds:9.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
