"""Images for a page of results: some of the candidate's as they pass, real ones, the nearest pairs, both as a cloud.

Nearness and the cloud are of `rfd`'s features, which need no weights; each of the 704 is divided by its deviation
among the real images, so that means of colour do not outweigh shape. Memory: 500 + 2,000 images of 32 px, their
features (7 MB), and 24 pairs at the size that is shown. N images, D = 704.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from gtool import console
from gtool.eval.image_sets import Stored
from gtool.eval.report.page import Pair, Pictures
from gtool.metrics.rfd import SIDE, RandomFeatures

if TYPE_CHECKING:
    from gtool.eval.image_sets import Batch, Candidate

NUM_FAKE, NUM_REAL = 500, 2000  # images at most whose features are compared
NUM_POINTS = 500  # of each kind in the cloud
NUM_PAIRS = 24
LONGEST = 192  # pixels of a side of a picture on the page
BATCH = 16


class Gallery:
    """Keeps images of both sides of one comparison."""

    def __init__(self) -> None:
        self._real: Stored | None = None
        self._small: list[Tensor] = []
        self._shown: list[np.ndarray] = []

    def watch(self, candidate: Candidate, real: object) -> Watched:
        """Return the same candidate, of which some images are kept as they pass; statistics have none to show."""
        self._real = real if isinstance(real, Stored) else None
        return Watched(candidate, self)

    def keep(self, image: Tensor, *, is_shown: bool) -> None:
        """Keep one image uint8 (3, H, W)."""
        self._small.append(_reduce(image))
        if is_shown:
            self._shown.append(_to_show(image))

    def pictures(self) -> Pictures | None:
        """Return what a page shows; None where nothing has passed."""
        if not self._small:
            return None
        fake, shown = torch.stack(self._small), self._shown
        small, places = self._read_real()
        if len(small) < 2 or self._real is None:
            return Pictures(pairs=[Pair(image) for image in shown])
        features = RandomFeatures(small)(torch.cat([small, fake])).double()
        features /= features[: len(small)].std(0).clamp_min(1e-6)
        real_rows, fake_rows = features[: len(small)], features[len(small) :]
        rows = fake_rows[_evenly(len(fake_rows), len(shown))]
        distances, nearest = torch.cdist(rows, real_rows).min(1)
        originals = self._read_shown(places[nearest.numpy()])
        pairs = [Pair(*pair) for pair in zip(shown, originals, distances.tolist(), strict=True)]
        return replace(_cloud(fake_rows, real_rows), pairs=pairs, real_apart=_apart(real_rows))

    def _read_real(self) -> tuple[Tensor, np.ndarray]:
        """Return real images uint8 (N, 3, 32, 32), spread evenly over those that were chosen, and their places."""
        if self._real is None:
            return torch.empty(0), np.empty(0, int)
        places = self._real.chosen[_evenly(len(self._real.chosen), NUM_REAL)]
        small: list[Tensor] = []
        with console.progress("real images for the page") as update:
            for batch in replace(self._real, chosen=places).batches(BATCH):
                small += map(_reduce, batch)
                update(len(small), len(places), f"{len(small):,} of {len(places):,} images")
        return torch.stack(small), places

    def _read_shown(self, places: np.ndarray) -> list[np.ndarray]:
        assert self._real is not None
        return [
            _to_show(image)
            for place in places
            for batch in replace(self._real, chosen=np.array([place])).batches(1)
            for image in batch
        ]


class Watched:
    """A candidate of which a gallery keeps images, spread evenly over it: folders are often sorted by class."""

    def __init__(self, candidate: Candidate, gallery: Gallery) -> None:
        self._candidate = candidate
        self._gallery = gallery

    def __getattr__(self, name: str) -> Any:
        return getattr(self._candidate, name)

    @property
    def count(self) -> int:
        """How many images the candidate has."""
        return self._candidate.count

    def part(self, start: int, stop: int) -> Watched:
        """Return images start to stop; where several processes share the work, each shows of its own."""
        return Watched(self._candidate.part(start, stop), self._gallery)  # type: ignore[attr-defined]

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the candidate's own batches."""
        kept = _evenly(self.count, NUM_FAKE)
        wanted = {int(place): number for number, place in enumerate(kept)}
        shown = set(_evenly(len(kept), NUM_PAIRS).tolist())
        position = 0
        for batch in self._candidate.batches(batch_size):
            for image in batch:
                if position in wanted:
                    self._gallery.keep(image, is_shown=wanted[position] in shown)
                position += 1
            yield batch


def _evenly(count: int, most: int) -> np.ndarray:
    """Return at most so many places of range(count), evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _reduce(image: Tensor) -> Tensor:
    """Return uint8 (3, 32, 32): what rfd looks at, for images of any size."""
    return F.adaptive_avg_pool2d(image.float(), SIDE).round().to(torch.uint8).cpu()


def _to_show(image: Tensor) -> np.ndarray:
    """Return uint8 (H, W, 3), its longer side 192 px at most."""
    picture = Image.fromarray(np.ascontiguousarray(image.cpu().numpy().transpose(1, 2, 0)))
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _apart(rows: Tensor) -> float:
    """Return the median distance of rows (N, D) to their nearest neighbours."""
    return float(torch.cdist(rows, rows).fill_diagonal_(torch.inf).min(1).values.median())


def _cloud(fake: Tensor, real: Tensor) -> Pictures:
    """Project features (N, D) of both sides on the two directions in which all of them vary most."""
    real = real[_evenly(len(real), NUM_POINTS)]
    fake = fake[_evenly(len(fake), NUM_POINTS)]
    rows = torch.cat([real - real.mean(0), fake - real.mean(0)])
    rows = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    axes = vectors[:, [-1, -2]]
    # The sign of an eigenvector is nobody's choice; this one makes pages repeatable.
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    points = (rows @ axes).numpy()
    shares = (values[[-1, -2]] / values.clamp_min(0).sum()).tolist()
    return Pictures(
        real_points=points[: len(real)], generated_points=points[len(real) :], shares=(shares[0], shares[1])
    )
