"""What a prior of scenes does beside plain sampling: guidance, several codes a step, holes of any shape.

    python -m tests.benchmarks.prior_orders guidance|steps|speed|holes [WEIGHTS] [--num 500] [--out PICTURE.png]

WEIGHTS: of a prior over label maps of scenes; those that come with gtool where none are named. Scenes are drawn anew.
Agreement is the share of pixels of the wanted class (`gtool.metrics.map_agreement`), rfd that to as many drawn scenes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from gtool.data.loader import ids_of_maps
from gtool.data.synthetic.scenes import draw_scenes
from gtool.io.pictures import grid, save_png
from gtool.metrics.frechet import frechet_of_rows
from gtool.metrics.map_agreement import read_maps
from gtool.metrics.rfd import RandomFeatures
from gtool.models.generate import TrainedModel, load_model
from gtool.models.prior.pipeline import decode, encode_images
from gtool.models.prior.sampling import UNKNOWN, sample_codes, uniform_numbers
from gtool.sample.codes import Completion, images_of, start_codes

SEED = 20261130  # of the scenes: no training draws them
SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 6.0)
BATCH = 64


class Scenes:
    """Drawn scenes, the conditions that their maps are, and what samples of them are measured by."""

    def __init__(self, model: TrainedModel, num: int) -> None:
        self.model, side = model, model.resolution
        drawn = draw_scenes(np.arange(num), side, SEED)
        self.images, self.maps = drawn.images, drawn.segmentation
        self.ids = ids_of_maps(self.maps, model.network.config.prior.grid)
        others = draw_scenes(np.arange(num, 2 * num), side, SEED).images
        self.features = RandomFeatures(others)
        self.real = self.features(others)

    def codes(self, known: Tensor | None = None, **params: float | int | None) -> Tensor:
        """Sample codes (N, h, w) of all maps; known: one image's, UNKNOWN where they are sampled."""
        grid_size = self.model.network.config.prior.grid
        known = torch.full((1, *grid_size), UNKNOWN) if known is None else known
        return sample_codes(
            self.model.prior,
            self.ids,
            known.expand(len(self.ids), -1, -1),
            uniform_numbers(1, torch.arange(len(self.ids)), grid_size),
            replace(self.model.default_params, **params),
            batch_size=BATCH,
        )

    def scores(self, images: np.ndarray) -> tuple[float, float]:
        """Return agreement and rfd of images of all maps."""
        return float((read_maps(images) == self.maps).mean()), frechet_of_rows(
            self.real, self.features(images)
        )

    def decoded(self, codes: Tensor) -> np.ndarray:
        return decode(self.model.network, codes, self.model.compute).numpy()


def guidance(scenes: Scenes, out: Path) -> None:
    """Print agreement and rfd by scale, and draw both as curves."""
    found = []
    for scale in SCALES:
        found.append(scenes.scores(scenes.decoded(scenes.codes(guidance=scale))))
        print(f"guidance {scale:g}: agreement {found[-1][0]:.3f}, rfd {found[-1][1]:.2f}", flush=True)
    again = scenes.decoded(
        encode_images(scenes.model.network, torch.from_numpy(scenes.images), scenes.model.compute)
    )
    print("reconstructions: agreement {:.3f}, rfd {:.2f}".format(*scenes.scores(again)))
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, values, title in zip(
        figure.subplots(1, 2), zip(*found, strict=True), ("agreement with the map", "rfd"), strict=True
    ):
        axes.plot(SCALES, values, marker=".")
        axes.set(title=title, xlabel="guidance scale")
        axes.grid(alpha=0.3)
    figure.savefig(out)


def steps(scenes: Scenes, out: Path) -> None:
    """Print agreement and rfd by the number of steps."""
    shown = []
    for number in (None, 64, 32, 16, 8, 4):
        images = scenes.decoded(scenes.codes(steps=number))
        print("steps {}: agreement {:.3f}, rfd {:.2f}".format(number, *scenes.scores(images)), flush=True)
        shown.append(images[:10])
    save_png(out, grid(np.concatenate(shown), columns=10), {})


def speed(scenes: Scenes, out: Path) -> None:
    """Print seconds for one image: one by one with the cache, and in 16 steps; the best of several, in turn."""
    prior, size = scenes.model.prior, scenes.model.network.config.prior.grid
    best: dict[int | None, float] = {}
    for _ in range(8):
        for number in (None, 16):
            start = time.perf_counter()
            params = replace(scenes.model.default_params, steps=number)
            uniform = uniform_numbers(1, torch.arange(1), size)
            sample_codes(
                prior, scenes.ids[:1], torch.full((1, *size), UNKNOWN), uniform, params, batch_size=1
            )
            best[number] = min(best.get(number, 1e9), time.perf_counter() - start)
    print(
        f"one by one {best[None]:.3f} s, 16 steps {best[16]:.3f} s: {best[None] / best[16]:.2f} times faster"
    )


def blob(random: np.random.Generator, side: int) -> np.ndarray:
    """Return a random mask of soft outlines, of 10 to 60 % of the pixels: bool (side, side)."""
    noise = F.interpolate(
        torch.from_numpy(random.standard_normal((1, 1, 6, 6))), size=(side, side), mode="bicubic"
    )
    values = noise[0, 0].numpy()
    return values > np.quantile(values, 1 - random.uniform(0.1, 0.6))


def seam(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Return sum and number of the absolute differences of pixels (3, H, W) across the edge of a hole."""
    total = np.zeros(2)
    for axis in (1, 2):
        edge = np.diff(hole.astype(np.int8), axis=axis - 1) != 0
        total += np.abs(np.diff(image.astype(np.float32), axis=axis)).mean(0)[edge].sum(), edge.sum()
    return total


def holes(scenes: Scenes, out: Path) -> None:
    """Fill a hole of every scene, given its map: the seam, agreement inside, what is kept."""
    random, model, size = np.random.default_rng(0), scenes.model, (scenes.model.resolution,) * 2
    seams, hits, shown = np.zeros((2, 2)), np.zeros(2), []
    for number, (photo, wanted) in enumerate(zip(scenes.images, scenes.maps, strict=True)):
        completion = Completion(photo, blob(random, size[0]), is_pasted=True)
        start = start_codes(model, size, completion)
        one = uniform_numbers(1, torch.tensor([number]), (start.shape[1], start.shape[2]))
        ids = scenes.ids[number : number + 1]
        codes = sample_codes(model.prior, ids, start, one, model.default_params, batch_size=1)
        assert torch.equal(codes[start >= 0], start[start >= 0])
        (filled,) = images_of(model, codes, completion)
        assert (filled == photo)[:, ~completion.hole].all()
        seams += seam(filled, completion.hole), seam(photo, completion.hole)
        hit = (read_maps(np.stack([filled, filled]))[0] == wanted)[completion.hole]
        hits += hit.sum(), hit.size
        shown += [completion.picture, filled, photo]
        if (number + 1) % 100 == 0:
            ratio = seams[0, 0] / seams[0, 1] / (seams[1, 0] / seams[1, 1])
            print(f"{number + 1}: gradient across the edge {ratio:.3f} times the originals'", end=", ")
            print(f"agreement {hits[0] / hits[1]:.3f}", flush=True)
    save_png(out, grid(np.stack(shown[:90]), columns=9), {})


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one kind of measurement."""
    kinds = {one.__name__: one for one in (guidance, steps, speed, holes)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("weights", nargs="?", default="prior")
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--out", type=Path, default=None)
    chosen = parser.parse_args(arguments)
    scenes = Scenes(load_model(chosen.weights, "cpu"), chosen.num)
    kinds[chosen.kind](scenes, chosen.out or Path(f"{chosen.kind}.png"))


if __name__ == "__main__":
    main()
