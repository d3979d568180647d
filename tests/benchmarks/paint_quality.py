"""How well photographs are painted: the predictor against greedy and random strokes, in one run.

    python -m tests.benchmarks.paint_quality --photos FOLDER [--weights RUN_OR_FILE]... [--sizes 256 512]
    [--budgets 500 1500 5000] [--sheet sheet.png] [--only NAME]

Every method paints every photo at every size with the same renderer, ground, acceptance rule and stroke budgets;
for each method and budget the means over photos are printed:

l1, ssim, edges   mean absolute difference in [0, 1]; structural similarity of greys, 7 x 7 windows; correlation of
                  Sobel magnitudes, the photo blurred by 1.5 px
bias, bare        mean brightness of painting less photo; share of pixels without paint
axes, turned      share of elongated strokes within 10 degrees of horizontal or vertical (uniform: 22 %); the same for
                  the largest square of the photo turned by 30 degrees, whose uprights and horizons are on no axis:
                  what is more than uniform there is the painter's doing, not the photo's
strokes           painted
propose, seconds  CPU seconds of proposing strokes, and of proposing and painting them (the last rendering apart)

`greedy` tries its strokes at 16 pixels a patch, as `gtool paint --method greedy` does, `greedy 32` at all 32; that
and `turned` are measured with the largest budget.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from gtool.models.paint_transformer.proposals import load_predictor
from gtool.runtime.device import make_compute
from gtool.strokes import painting as engine
from gtool.strokes import proposals
from gtool.strokes.brush import load_brush
from gtool.strokes.canvas import Painting, uncovered
from gtool.strokes.painting import deepest_level, paint
from gtool.strokes.settings import PaintSettings

SELECTION_SIZE = proposals.SELECTION_SIZE
GAP, LABEL = 6, 24  # pixels of the contact sheet
Scores = dict[str, float]


def read(path: Path, size: int) -> Tensor:
    """Read a photo upright, its longer side `size` pixels: (3, H, W) in [0, 1]."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def ssim(a: Tensor, b: Tensor) -> float:
    """Return the mean structural similarity of the greys of two pictures (3, H, W)."""
    x, y = (picture.mean(0, keepdim=True)[None] for picture in (a, b))

    def mean(z: Tensor) -> Tensor:
        return F.avg_pool2d(z, 7, 1)

    mx, my = mean(x), mean(y)
    vx, vy, covariance = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(found.mean())


def edges(painting: Tensor, photo: Tensor) -> float:
    """Return the correlation of edge strength of a painting with that of the photo, a little blurred."""
    places = torch.arange(-4, 5.0)
    kernel = torch.exp(-places.square() / (2 * 1.5**2))
    kernel = (kernel[:, None] * kernel)[None, None] / kernel.sum() ** 2
    sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    both = torch.stack([sobel, sobel.T])[:, None]

    def strength(picture: Tensor, blurred: bool) -> Tensor:
        grey = picture.mean(0)[None, None]
        grey = F.conv2d(F.pad(grey, (4, 4, 4, 4), mode="replicate"), kernel) if blurred else grey
        return F.conv2d(grey, both).norm(dim=1).flatten()

    pair = torch.stack([strength(painting, False), strength(photo, True)])
    return float(torch.corrcoef(pair)[0, 1])


def on_axes(painting: Painting) -> float:
    """Return the share of strokes at least 1.5 times as long as wide that lie along the axes, within 10 degrees."""
    width, height, theta = painting.shape_params[:, 2:].unbind(-1)
    ratio = torch.maximum(width, height) / torch.minimum(width, height).clamp(min=1e-6)
    long = ratio >= 1.5
    away = (theta.remainder(0.5) - 0.25).abs()  # 0.25: on an axis
    return float((away[long] > 0.25 - 10 / 180).float().mean()) if bool(long.any()) else float("nan")


def turned(photo: Tensor) -> Tensor:
    """Return the largest square of a photo (3, H, W) that is left when it is turned by 30 degrees."""
    side = min(photo.shape[1:])
    square = TF.center_crop(photo, [side, side])
    kept = int(side / (math.cos(math.pi / 6) + math.sin(math.pi / 6)))
    return TF.center_crop(TF.rotate(square, 30, TF.InterpolationMode.BILINEAR), [kept, kept])


class Stopwatch:
    """CPU seconds spent proposing strokes."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._propose = engine.propose
        engine.propose = self  # type: ignore[assignment]

    def __call__(self, *arguments: Any) -> Any:
        started = time.process_time()
        found = self._propose(*arguments)
        self.seconds += time.process_time() - started
        return found


def methods(weights: list[Path]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield a name, the options of the plan, and what proposes."""
    yield "random", {"method": "random"}, None
    yield "greedy", {"method": "greedy"}, None
    yield "greedy 32", {"method": "greedy"}, None
    compute = make_compute("cpu", "auto")
    for path in weights:
        predict = load_predictor(path, compute)
        for select in ("gain", "decision"):
            yield f"{path.stem[:16]} {select}", {"method": "predictor", "select": select}, predict


def main() -> None:
    """Paint everything and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, action="append", default=[])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--budgets", type=int, nargs="+", default=[500, 1500, 5000])
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    photos = sorted(path for path in arguments.photos.iterdir() if arguments.only in path.name)
    brush = load_brush("flat")
    rows: list[list[np.ndarray]] = []
    watch = Stopwatch()
    chosen = list(methods(arguments.weights))
    for size in arguments.sizes:
        for budget in arguments.budgets:
            found: dict[str, list[Scores]] = {name: [] for name, _, _ in chosen}
            for path in photos:
                photo = read(path, size)
                _, height, width = photo.shape
                row = [_picture(photo)]
                for name, options, predict in chosen:
                    last = budget == arguments.budgets[-1]
                    if name == "greedy 32" and not last:
                        continue
                    settings = PaintSettings(
                        levels=deepest_level(height, width), max_strokes=budget, **options
                    )
                    proposals.SELECTION_SIZE = 32 if name == "greedy 32" else SELECTION_SIZE
                    started, watch.seconds = time.process_time(), 0.0
                    painting = paint(photo, settings, brush, predict)
                    times = {"propose": watch.seconds, "seconds": time.process_time() - started}
                    askew = on_axes(_paint_turned(photo, settings, brush, predict)) if last else float("nan")
                    pixels = painting.render(height, width)
                    scores, picture = _score(photo, painting, pixels, brush)
                    found[name].append(scores | {"turned": askew} | times)
                    row.append(picture)
                if size == arguments.sizes[-1] and budget == arguments.budgets[-1]:
                    rows.append(row)
            _print(size, budget, found)
    if arguments.sheet:
        _save_sheet(arguments.sheet, ["photo", *(name for name, _, _ in chosen)], rows)


def _paint_turned(photo: Tensor, settings: PaintSettings, brush: Any, predict: Any) -> Painting:
    askew = turned(photo)
    return paint(askew, replace(settings, levels=deepest_level(*askew.shape[1:])), brush, predict)


def _picture(photo: Tensor) -> np.ndarray:
    return (photo.permute(1, 2, 0) * 255).round().byte().numpy()


def _score(photo: Tensor, painting: Painting, pixels: Tensor, brush: Any) -> tuple[Scores, np.ndarray]:
    painted = pixels.permute(2, 0, 1).float() / 255
    return {
        "l1": float((painted - photo).abs().mean()),
        "ssim": ssim(painted, photo),
        "edges": edges(painted, photo),
        "bias": float(painted.mean() - photo.mean()),
        "bare": uncovered(painting, *photo.shape[1:]),
        "axes": on_axes(painting),
        "strokes": float(len(painting)),
    }, pixels.numpy()


def _print(size: int, budget: int, found: dict[str, list[Scores]]) -> None:
    print(f"\n{size} px, at most {budget} strokes, {len(next(iter(found.values())))} photos")
    names = list(next(iter(found.values()))[0])
    print(f"{'':<26}" + "".join(f"{name:>10}" for name in names))
    for method, scores in found.items():
        if not scores:
            continue
        values = np.array([[entry[name] for name in names] for entry in scores])
        means = values.mean(0) if len(values) == 1 else np.ma.masked_invalid(values).mean(0).filled(np.nan)
        print(f"{method:<26}" + "".join(f"{value:>10.4f}" for value in means), flush=True)


def _save_sheet(path: Path, names: list[str], rows: list[list[np.ndarray]]) -> None:
    """Save photos with their paintings beside them, every column under its name."""
    column = max(picture.shape[1] for row in rows for picture in row) + GAP
    sheet = Image.new(
        "RGB", (column * len(names), sum(row[0].shape[0] + GAP for row in rows) + LABEL), "white"
    )
    for number, name in enumerate(names):
        ImageDraw.Draw(sheet).text((number * column + GAP, GAP), name, "black")
    top = LABEL
    for row in rows:
        for number, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (number * column, top))
        top += row[0].shape[0] + GAP
    sheet.save(path)


if __name__ == "__main__":
    main()
