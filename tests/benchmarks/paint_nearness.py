"""How near paintings of few strokes come to photos, and how regular their texture is: this code beside a commit's.

    python -m tests.benchmarks.paint_nearness --photos FOLDER --commit 0b80e8c [--budgets 250 500] [--size 512]

Both paint through the command line and save stroke files; all are rendered by this code, and
the means over the photos are printed:

l1, perceptual   mean absolute difference in [0, 1]; distance of features of EfficientNet-Lite0
edges            1 less the correlation of Sobel magnitudes, the photo blurred by 1.5 px
corduroy         highest autocorrelation, 8 to 40 px apart, of painting less photo in the flattest window of 96 px; of
                 the picture that the command itself wrote

MEASURED
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.losses.perceptual import perceptual_distance
from gtool.strokes.stroke_file import load_strokes
from tests.benchmarks.paint_quality import edges, read

WINDOW, NEAREST, FARTHEST = 96, 8, 40
Row = tuple[float, ...]


def paint_all(code: Path, photos: Path, out: Path, size: int, budget: int) -> None:
    """Paint a folder by the code of a folder."""
    flags = ["--max-side", str(size), "--max-strokes", str(budget), "--strokes", f"{out}/", "-o", f"{out}/"]
    command = [sys.executable, "-m", "gtool", "--quiet", "paint", str(photos), *flags, "--device", "cpu"]
    subprocess.run(
        command, check=True, env=os.environ | {"PYTHONPATH": str(code)}, cwd=code, stdout=subprocess.DEVNULL
    )


def corduroy(painting: Tensor, photo: Tensor) -> float:
    """Return the highest autocorrelation of what was painted onto the flattest window of a photo (3, H, W)."""
    grey = photo.mean(0)[None, None]
    spread = F.avg_pool2d(grey**2, WINDOW, 8) - F.avg_pool2d(grey, WINDOW, 8) ** 2
    row, column = divmod(int(spread.argmin()), spread.shape[-1])
    cut = (..., slice(8 * row, 8 * row + WINDOW), slice(8 * column, 8 * column + WINDOW))
    texture = (painting - photo).mean(0)[cut]
    texture = texture - texture.mean()
    power = torch.fft.fft2(texture, (2 * WINDOW, 2 * WINDOW)).abs() ** 2
    places = torch.fft.fftfreq(2 * WINDOW, 1 / (2 * WINDOW))
    apart = torch.hypot(places[:, None], places[None])
    # Fewer pixels overlap farther apart.
    overlap = (WINDOW - places.abs()).clamp(min=1)
    found = torch.fft.ifft2(power).real / (overlap[:, None] * overlap[None])
    found = found / found[0, 0].clamp(min=1e-9)
    return float(found[(apart >= NEAREST) & (apart <= FARTHEST)].max())


def score(folder: Path, photos: Path, size: int) -> Row:
    """Return the means over the paintings of a folder."""
    rows = list[Row]()
    for path in sorted(photos.iterdir()):
        photo = read(path, size)
        strokes = load_strokes(folder / f"{path.stem}-painted.json")
        painted = strokes.render(*photo.shape[1:]).permute(2, 0, 1).float() / 255
        written = read(folder / f"{path.stem}-painted.png", size)
        far = float(perceptual_distance(2 * painted[None] - 1, 2 * photo[None] - 1))
        l1 = float((painted - photo).abs().mean())
        rows.append((l1, far, 1 - edges(painted, photo), corduroy(written, photo), float(len(strokes))))
    return tuple(np.mean(rows, axis=0))


def main() -> None:
    """Paint with both, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--budgets", type=int, nargs="+", default=[250, 500, 1500, 5000])
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "code"
        archive = subprocess.run(
            ["git", "archive", arguments.commit, "gtool"], cwd=root, check=True, stdout=subprocess.PIPE
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            packed.extractall(before, filter="data")
        print(f"{'':18}{'l1':>9}{'perceptual':>12}{'edges':>9}{'corduroy':>10}{'strokes':>9}")
        for budget in arguments.budgets:
            for name, code in ((arguments.commit, before), ("this", root)):
                out = Path(folder) / f"{name}-{budget}"
                paint_all(code, arguments.photos.resolve(), out, arguments.size, budget)
                l1, far, edge, regular, strokes = score(out, arguments.photos, arguments.size)
                print(
                    f"{name:<10}{budget:>8}{l1:>9.4f}{far:>12.4f}{edge:>9.4f}{regular:>10.3f}{strokes:>9.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
