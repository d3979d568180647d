"""How fast data comes: scenes drawn, images decoded, batches served. Run it on a quiet machine.

python tests/benchmarks/data_speed.py [DATASET]    DATASET defaults to JPEG files made on the spot
Prints images per second of wall and of processor time. The bar, at 32 pixels: 100,000 images/s served in
batches of 128, and 3,000 scenes/s drawn on one core.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from gtool.data.loader import Batches
from gtool.data.open import open_dataset
from gtool.data.pixel_cache import load_images
from gtool.data.synthetic.scenes import draw_scenes

SERVED_BAR, DRAWN_BAR = 100_000, 3_000


@contextmanager
def timed(what: str, count: int, bar: int | None = None) -> Iterator[None]:
    wall, used = time.perf_counter(), time.process_time()
    yield
    wall, used = time.perf_counter() - wall, time.process_time() - used
    verdict = "" if bar is None else f"   bar {bar:,}: {'met' if count / used >= bar else 'MISSED'}"
    print(f"{what:42} {count / wall:12,.0f} /s wall {count / used:12,.0f} /s processor{verdict}")


def make_zip(path: Path, count: int = 10_000) -> None:
    images = draw_scenes(np.arange(count), 32, seed=1).images
    with zipfile.ZipFile(path, "w") as archive:
        for index, image in enumerate(images):
            buffer = io.BytesIO()
            Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "JPEG", quality=75)
            archive.writestr(f"{index:06}.jpg", buffer.getvalue())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GTOOL_CACHE"] = folder
        for resolution, count in ((32, 4000), (64, 1000), (256, 60)):
            with timed(f"draw scenes at {resolution}", count, DRAWN_BAR if resolution == 32 else None):
                draw_scenes(np.arange(count), resolution, seed=0)
        if len(sys.argv) < 2:
            make_zip(Path(folder, "made.zip"))
        source = open_dataset(sys.argv[1] if len(sys.argv) > 1 else str(Path(folder, "made.zip")))
        with timed(f"decode {Path(source.name).name} to 32", len(source)):
            images = load_images(source, 32)
        for flip in (False, True):
            batches = Batches(images, seed=0, flip=flip)
            batches.next(128)
            with timed(f"serve batches of 128, flip={flip}", 1500 * 128, SERVED_BAR):
                for _ in range(1500):
                    batches.next(128)


if __name__ == "__main__":
    main()
