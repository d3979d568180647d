"""Images for a page of results: some of those that were scored, the real ones nearest to them, and both as points.

Nearness and points are of `rfd`'s features, which need no weights; each of the 704 is divided by its deviation
among the real images, so that means of colour do not outweigh shape. N images, D = 704.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gtool import console
from gtool.eval.image_sets import Batch, ImageSet, StoredImages
from gtool.io.pictures import Pixels
from gtool.metrics.rfd import SIDE, RandomFeatures

NUM_FAKE, NUM_REAL = 500, 2000  # images at most whose features are compared: 7 MB
NUM_POINTS = 500  # of each kind
NUM_PAIRS = 24
LONGEST = 192  # pixels of a side of a picture on the page
BATCH = 16


@dataclass(frozen=True)
class Preview:
    """What a page shows of images.

    pairs: a generated image (H, W, 3), the real one nearest to it, and their distance; None where nothing is real.
    real_points, generated_points: features (N, 2) along two directions; `shares` of the variance are along them.
    real_distance: from a real image to the one nearest to it, the median.
    """

    pairs: list[tuple[Pixels, Pixels | None, float | None]]
    real_distance: float = 0.0
    real_points: NDArray[np.float64] | None = None
    generated_points: NDArray[np.float64] | None = None
    shares: tuple[float, float] = (0.0, 0.0)


class ImageSampler:
    """An image set that keeps some of its images as they pass, evenly spread: folders are often sorted by class."""

    def __init__(self, images: ImageSet, real: object) -> None:
        self.images = images
        self.real = real if isinstance(real, StoredImages) else None
        self.count = images.count
        self.grain = images.grain
        self._small: list[Tensor] = []
        self._pictures: dict[int, Pixels] = {}  # by their places among the small ones

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Yield the set's own batches; where several processes share the work, each keeps of its share."""
        kept = start + _evenly((self.count if stop is None else stop) - start, NUM_FAKE)
        numbers = {int(place): number for number, place in enumerate(kept)}
        shown = set(_evenly(len(kept), NUM_PAIRS).tolist())
        for batch in self.images.batches(batch_size, start, stop):
            for image in batch:
                if start in numbers:
                    self._small.append(_reduce(image))
                    if numbers[start] in shown:
                        self._pictures[numbers[start]] = _picture(image)
                start += 1
            yield batch

    def preview(self) -> Preview | None:
        """Return what a page shows; None where nothing has passed, images alone where there is nothing real."""
        real = self.real
        if not self._small:
            return None
        pictures = list(self._pictures.values())
        if real is None or real.count < 2:
            return Preview([(picture, None, None) for picture in pictures])
        real = real.subset(_evenly(real.count, NUM_REAL))
        with console.progress("real images for the page") as update:
            small: list[Tensor] = []
            for batch in real.batches(BATCH):
                small += map(_reduce, batch)
                update(len(small), real.count, f"{len(small):,} of {real.count:,} images")
        originals, generated = torch.stack(small), torch.stack(self._small)
        features = RandomFeatures(originals)(torch.cat([originals, generated])).double()
        features /= features[: len(originals)].std(0).clamp_min(1e-6)
        real_rows, fake_rows = torch.split(features, [len(originals), len(generated)])
        shown = fake_rows[list(self._pictures)]
        distances, nearest = torch.cdist(shown, real_rows).min(1)
        chosen = (real.subset(place[None]).batches(1) for place in nearest.numpy())
        partners = [_picture(image) for batches in chosen for image in chain.from_iterable(batches)]
        between_real = torch.cdist(real_rows, real_rows).fill_diagonal_(torch.inf).min(1).values
        points, other_points, shares = _project(real_rows, fake_rows)
        pairs = zip(pictures, partners, distances.tolist(), strict=True)
        return Preview(list(pairs), float(between_real.median()), points, other_points, shares)


def _evenly(count: int, most: int) -> np.ndarray:
    """Return at most so many places of range(count), evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _reduce(image: Tensor) -> Tensor:
    """Return uint8 (3, 32, 32): what rfd looks at, for images of any size."""
    return F.adaptive_avg_pool2d(image.float(), SIDE).round().to(torch.uint8).cpu()


def _picture(image: Tensor) -> Pixels:
    """Return uint8 (H, W, 3), its longer side 192 px at most."""
    picture = Image.fromarray(np.ascontiguousarray(image.cpu().numpy().transpose(1, 2, 0)))
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _project(
    real: Tensor, fake: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Project features (N, D) of both sides on the two directions in which all of them vary most (PCA)."""
    real, fake = (rows[_evenly(len(rows), NUM_POINTS)] for rows in (real, fake))
    rows = torch.cat([real, fake])
    rows = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    axes = vectors[:, [-1, -2]]
    # The sign of an eigenvector is nobody's choice; this one makes pages repeatable.
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    points = (rows @ axes).numpy()
    first, second = (values[[-1, -2]] / values.clamp_min(0).sum()).tolist()
    return points[: len(real)], points[len(real) :], (first, second)
