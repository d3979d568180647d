"""How near paintings of few strokes come to photos: this code beside a commit's.

    python -m tests.benchmarks.paint_nearness --photos FOLDER --commit 0b80e8c [--budgets 250 500] [--size 512]

Both paint through the command line and save stroke files; all are rendered by this code, and
the means over the photos are printed:

l1, perceptual   mean absolute difference in [0, 1]; distance of features of EfficientNet-Lite0
edges            1 less the correlation of Sobel magnitudes, the photo blurred by 1.5 px
Measured, eleven photos at 512 px: of 250 strokes l1 0.0466 (0b80e8c: 0.0626), perceptual 0.9674 (1.2585), edges 0.284
(0.491); of 500 strokes 0.0397 (0.0529), 0.7854 (1.1363), 0.216 (0.363). 1,500 strokes are not refined, as it takes a
quarter of a minute; it would give 0.0306 (0.0395), 0.5181 (0.8637), 0.170 (0.192). Refining follows the perceptual
distance in its last twenty steps, which flatters that column; without it (two photos, 250 strokes) perceptual falls by
12 %, the others as much.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gtool.losses.perceptual import perceptual_distance
from gtool.strokes.stroke_file import load_strokes
from tests.benchmarks.paint_quality import edges, read

Row = tuple[float, ...]


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Yield a folder with the package as it is in a commit of this repository."""
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", commit, "gtool"], cwd=root, check=True, stdout=subprocess.PIPE
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            packed.extractall(folder, filter="data")
        yield Path(folder)


def paint_all(code: Path, photos: Path, out: Path, size: int, *flags: str) -> None:
    """Paint a folder by the code of a folder."""
    common = ["--max-side", str(size), "-o", f"{out}/", "--device", "cpu"]
    command = [sys.executable, "-m", "gtool", "--quiet", "paint", str(photos), *common, *flags]
    subprocess.run(
        command, check=True, env=os.environ | {"PYTHONPATH": str(code)}, cwd=code, stdout=subprocess.DEVNULL
    )


def score(folder: Path, photos: Path, size: int) -> Row:
    """Return the means over the paintings of a folder."""
    rows = list[Row]()
    for path in sorted(photos.iterdir()):
        photo = read(path, size)
        strokes = load_strokes(folder / f"{path.stem}-painted.json")
        painted = strokes.render(*photo.shape[1:]).permute(2, 0, 1).float() / 255
        far = float(perceptual_distance(2 * painted[None] - 1, 2 * photo[None] - 1))
        l1 = float((painted - photo).abs().mean())
        rows.append((l1, far, 1 - edges(painted, photo), float(len(strokes))))
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
    with tempfile.TemporaryDirectory() as folder, checked_out(arguments.commit) as before:
        print(f"{'':18}{'l1':>9}{'perceptual':>12}{'edges':>9}{'strokes':>9}")
        for budget in arguments.budgets:
            for name, code in ((arguments.commit, before), ("this", Path(__file__).parents[2])):
                out = Path(folder) / f"{name}-{budget}"
                flags = ("--max-strokes", str(budget), "--strokes", f"{out}/")
                paint_all(code, arguments.photos.resolve(), out, arguments.size, *flags)
                l1, far, edge, strokes = score(out, arguments.photos, arguments.size)
                print(
                    f"{name:<10}{budget:>8}{l1:>9.4f}{far:>12.4f}{edge:>9.4f}{strokes:>9.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
