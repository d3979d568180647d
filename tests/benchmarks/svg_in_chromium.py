"""How a painting's SVG looks in a browser, against the renderer's own pixels.

    python -m tests.benchmarks.svg_in_chromium [STROKES.json ...] [--size 768] [--browser chromium] [--keep FOLDER]

Without stroke files it paints a rendered scene, greedily, with 300 strokes of every built-in brush, and with 3,000
of the flat one. Printed for each: mean absolute difference and mean difference of all channels, of 255, what the
difference would be to the ground alone, bytes of the SVG a stroke, and seconds that the browser took.

Seen with Chromium 156 at 768 px, November 2026 (this script asks for at most MOST_APART and MOST_BIASED):

    flat, 300 strokes    apart 5.42  mean -0.56  ground 29.0
    round, 300 strokes   apart 5.31  mean -0.73  ground 29.2
    dry, 300 strokes     apart 7.76  mean -0.11  ground 28.5
    flat, 2513 strokes   apart 3.44  mean -0.36  ground 29.2

A photograph of a man with a hat, 2,765 strokes of the predictor: 2.81. A stroke takes about 97 bytes. Chromium's
time grows faster than the strokes: 2,500 take 2 s, 5,000 2.6 s, 10,000 6 s and 20,000 25 s on two busy cores.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gtool.data.synthetic.scenes import draw_scenes
from gtool.io.pictures import save_png
from gtool.paint.svg import save_svg
from gtool.strokes.brush import BRUSHES, load_brush
from gtool.strokes.canvas import Painting
from gtool.strokes.painting import paint
from gtool.strokes.settings import PaintSettings
from gtool.strokes.stroke_file import load_strokes

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MOST_APART = 8.0  # mean absolute difference, of 255
MOST_BIASED = 1.5
CASES = (*((kind, 300, 3) for kind in BRUSHES), ("flat", 3000, 4))  # brush, strokes, levels


def paintings(files: list[Path]) -> Iterator[tuple[str, Painting]]:
    """Yield what is compared, by name."""
    if files:
        yield from ((file.name, load_strokes(file)) for file in files)
        return
    image = torch.from_numpy(draw_scenes(np.arange(1), 256, seed=1).images[0]).float() / 255
    for kind, count, levels in CASES:
        plan = PaintSettings(levels=levels, method="greedy", max_strokes=count)
        painting = paint(image, plan, load_brush(kind), None)
        yield f"{kind}, {len(painting)} strokes", painting


def photograph(browser: str, svg: Path, png: Path, height: int, width: int) -> np.ndarray:
    """Let a browser show an SVG: (H, W, 3)."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb"]
    shot = [f"--window-size={width},{height}", f"--screenshot={png}", svg.resolve().as_uri()]
    subprocess.run([browser, *flags, *shot], stderr=subprocess.DEVNULL, timeout=300, check=True)
    with Image.open(png) as opened:
        return np.asarray(opened.convert("RGB"))


def compare(name: str, painting: Painting, size: int, browser: str, folder: Path) -> bool:
    """Print the figures of one painting; says whether it is within the tolerance."""
    height, width = painting.size(size)
    stem = "".join(char if char.isalnum() else "-" for char in name)
    svg, png = folder / f"{stem}.svg", folder / f"{stem}-browser.png"
    save_svg(svg, painting, size)
    began = time.perf_counter()
    shown = photograph(browser, svg, png, height, width).astype(float)
    seconds = time.perf_counter() - began
    pixels = painting.render(height, width).numpy()
    save_png(folder / f"{stem}-rendered.png", pixels)
    bare = np.abs(np.array(painting.ground) * 255 - pixels).mean()
    apart, bias = np.abs(shown - pixels).mean(), (shown - pixels).mean()
    each = svg.stat().st_size / max(1, len(painting))
    print(
        f"{name:24} apart {apart:5.2f}  mean {bias:+5.2f}  ground {bare:5.1f}  {each:4.0f} B  {seconds:4.1f} s"
    )
    return bool(apart <= MOST_APART and abs(bias) <= MOST_BIASED)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--size", type=int, default=768, help="pixels of the longer side")
    parser.add_argument("--browser", default=next(filter(shutil.which, BROWSERS), None))
    parser.add_argument("--keep", type=Path, help="folder for the pictures of both")
    options = parser.parse_args()
    if options.browser is None:
        print("no Chromium found; name one with --browser", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        made = paintings(options.files)
        within = [compare(name, painting, options.size, options.browser, folder) for name, painting in made]
    return 0 if all(within) else 1


if __name__ == "__main__":
    raise SystemExit(main())
