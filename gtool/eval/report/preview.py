"""Images for a page of results: some of those that were scored, and the real ones nearest to them.

Nearness is of `rfd`'s features, which need no weights; each of the 704 is divided by its deviation among the real
images, so that means of colour do not outweigh shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from gtool import console
from gtool.eval.image_sets import Batch, ImageSet, StoredImages
from gtool.io.pictures import Pixels
from gtool.metrics.rfd import SIDE, RandomFeatures

NUM_PAIRS, NUM_REAL = 24, 2000  # images that are shown, and real ones that they are compared with, at most
LONGEST = 192  # pixels of a side of a picture on the page
BATCH = 16


@dataclass(frozen=True)
class Preview:
    """What a page shows of images.

    pairs: a generated image (H, W, 3), the real one nearest to it, and their distance; None where nothing is real.
    num_real: images that the nearest one was looked for in.
    real_distance: from a real image to the one nearest to it, the median.
    """

    pairs: Sequence[tuple[Pixels, Pixels | None, float | None]]
    num_real: int = 0
    real_distance: float = 0.0


class ImageSampler:
    """An image set that keeps some of its images as they pass, evenly spread: folders are often sorted by class."""

    def __init__(self, images: ImageSet, real: object) -> None:
        self.images = images
        self.real = real if isinstance(real, StoredImages) else None
        self.count = images.count
        self.grain = images.grain
        self._small: list[Tensor] = []
        self._pictures: list[Pixels] = []

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Yield the set's own batches; where several processes share the work, each keeps of its share."""
        kept = set(start + _evenly((self.count if stop is None else stop) - start, NUM_PAIRS))
        for batch in self.images.batches(batch_size, start, stop):
            for place, image in enumerate(batch, start):
                if place in kept:
                    self._small.append(_reduce(image))
                    self._pictures.append(_picture(image))
            start += len(batch)
            yield batch

    def preview(self) -> Preview | None:
        """Return what a page shows; None where nothing has passed, images alone where there is nothing real."""
        real = self.real
        if not self._small:
            return None
        if real is None or real.count < 2:
            return Preview([(picture, None, None) for picture in self._pictures])
        real = real.subset(_evenly(real.count, NUM_REAL))
        with console.progress("real images for the page") as update:
            small: list[Tensor] = []
            for batch in real.batches(BATCH):
                small += map(_reduce, batch)
                update(len(small), real.count)
        originals, generated = torch.stack(small), torch.stack(self._small)
        features = RandomFeatures(originals)(torch.cat([originals, generated])).double()
        features /= features[: len(originals)].std(0).clamp_min(1e-6)
        real_rows, fake_rows = torch.split(features, [len(originals), len(generated)])
        distances, nearest = torch.cdist(fake_rows, real_rows).min(1)
        chosen = (real.subset(place[None]).batches(1) for place in nearest.numpy())
        partners = [_picture(image) for batches in chosen for image in chain.from_iterable(batches)]
        between_real = torch.cdist(real_rows, real_rows).fill_diagonal_(torch.inf).min(1).values
        pairs = list(zip(self._pictures, partners, distances.tolist(), strict=True))
        return Preview(pairs, real.count, float(between_real.median()))


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
