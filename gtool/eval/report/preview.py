"""Images for a page of results: some of those that were scored, and the real ones nearest to them.

Nearness is the perceptual distance of `gtool.losses.perceptual` at 32 px. Of 300 images of CIFAR-10 held out, 55 % have
the class of their nearest of 2,000 others; 27 % by `rfd`'s random features, 21 % by pixels.
"""

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
from gtool.losses.perceptual import perceptual_features
from gtool.nn.ranges import to_pm1
from gtool.runtime.precision import full_fp32

NUM_PAIRS, NUM_REAL = 24, 2000  # images that are shown, and real ones that they are compared with, at most
SIDE = 32  # pixels of a side of images that are compared
LONGEST = 192  # pixels of a side of a picture on the page
BATCH, CHUNK = 16, 128  # images read and looked at together


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
        real_rows, fake_rows = _rows(small), _rows(self._small)
        distances, nearest = _apart(fake_rows, real_rows).min(1)
        chosen = (real.subset(place[None]).batches(1) for place in nearest.numpy())
        partners = [_picture(image) for batches in chosen for image in chain.from_iterable(batches)]
        between_real = _apart(real_rows, real_rows).fill_diagonal_(torch.inf).min(1).values
        pairs = list(zip(self._pictures, partners, distances.tolist(), strict=True))
        return Preview(pairs, real.count, float(between_real.median()))


def _evenly(count: int, most: int) -> np.ndarray:
    """Return at most so many places of range(count), evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _reduce(image: Tensor) -> Tensor:
    """Return uint8 (3, 32, 32), for images of any size."""
    return F.adaptive_avg_pool2d(image.float(), SIDE).round().to(torch.uint8).cpu()


@torch.no_grad()
@full_fp32()
def _rows(images: Sequence[Tensor]) -> Tensor:
    """Return perceptual features (N, D) of images: their squared differences add up to the perceptual distance."""
    rows = []
    for chunk in torch.split(torch.stack(list(images)), CHUNK):
        features = perceptual_features(to_pm1(chunk))
        scaled = [x.flatten(1) / (x[0, 0].numel() * len(features)) ** 0.5 for x in features]
        rows.append(torch.cat(scaled, dim=1))
    return torch.cat(rows)


def _apart(some: Tensor, others: Tensor) -> Tensor:
    return torch.cdist(some, others).square()


def _picture(image: Tensor) -> Pixels:
    """Return uint8 (H, W, 3), its longer side 192 px at most."""
    picture = Image.fromarray(np.ascontiguousarray(image.cpu().numpy().transpose(1, 2, 0)))
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return np.asarray(picture)
