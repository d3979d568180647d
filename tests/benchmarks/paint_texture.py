"""How striped flat places of a painting are, skies and walls: this code beside a commit's.

    python -m tests.benchmarks.paint_texture --photos FOLDER --commit 0b80e8c [--details 0.2 0.5 0.8]

Both paint every photo at 1024 px. Looked at is the flattest square of each photo, 96 pixels a side: its greys less
their mean over 17 x 17 pixels, and of these the largest autocovariance at distances from 4 to 32 pixels, which is what
equal strokes beside each other raise. Printed are this code's over the commit's, photo by photo, and their
geometric mean. Measured, four photos, of 0b80e8c: 0.08 at detail 0.2, 0.23 at 0.5, 0.32 at 0.8; at 0.8 0.13 to 0.81.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.benchmarks.paint_nearness import checked_out, paint_all
from tests.benchmarks.paint_quality import read

SIZE, SIDE, MEAN, NEAREST, FARTHEST = 1024, 96, 17, 4, 32


def flattest(photo: Tensor) -> tuple[slice, slice]:
    """Return where in a photo (3, H, W) the least happens."""
    grey = photo.mean(0)[None, None]
    apart = F.avg_pool2d(_without_mean(grey).abs(), SIDE, 16)
    top, left = (16 * int(place) for place in np.unravel_index(int(apart.argmin()), apart.shape[2:]))
    return slice(top, top + SIDE), slice(left, left + SIDE)


def stripes(painted: Tensor, place: tuple[slice, slice]) -> float:
    """Return the largest autocovariance of a place of a painting (3, H, W)."""
    grey = _without_mean(painted.mean(0)[place][None, None])[0, 0].double()
    grey = grey - grey.mean()
    spectrum = torch.fft.fft2(grey, (2 * SIDE, 2 * SIDE))
    covariance = torch.fft.ifft2(spectrum.abs() ** 2).real / grey.numel()
    lag = torch.fft.fftfreq(2 * SIDE) * 2 * SIDE
    distance = torch.hypot(lag[:, None], lag[None])
    return float(covariance[(distance > NEAREST) & (distance < FARTHEST)].max())


def _without_mean(grey: Tensor) -> Tensor:
    padded = F.pad(grey, (MEAN // 2,) * 4, mode="reflect")
    return grey - F.avg_pool2d(padded, MEAN, 1)


def main() -> None:
    """Paint with both, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--details", type=float, nargs="+", default=[0.2, 0.5, 0.8])
    arguments = parser.parse_args()
    photos = sorted(arguments.photos.iterdir())
    places = [flattest(read(path, SIZE)) for path in photos]
    with tempfile.TemporaryDirectory() as folder, checked_out(arguments.commit) as before:
        for detail in arguments.details:
            found = []
            for code in (before, Path(__file__).parents[2]):
                out = Path(folder) / f"{code.name}-{detail}"
                paint_all(code, arguments.photos.resolve(), out, SIZE, "--detail", str(detail))
                painted = [read(out / f"{path.stem}-painted.png", SIZE) for path in photos]
                found.append([stripes(one, place) for one, place in zip(painted, places, strict=True)])
            ratios = np.array(found[1]) / np.array(found[0])
            rows = " ".join(f"{path.stem} {ratio:.2f}" for path, ratio in zip(photos, ratios, strict=True))
            print(
                f"detail {detail}: {np.exp(np.log(ratios).mean()):.2f} of {arguments.commit} | {rows}",
                flush=True,
            )


if __name__ == "__main__":
    main()
