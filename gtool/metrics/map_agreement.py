"""Do pictures of scenes agree with the semantic maps that they were generated from?

Objects of scenes have random colours, so no colour rule tells a cone from a box. A small network that was trained on
drawn scenes, also blurred, noisy and tinted ones, reads a semantic map off each picture, and that map is compared
with the wanted one: the share of equal pixels, of each class, and the mean intersection over union.

What drawn scenes reach is the ceiling: on 1,000 that training never saw, 0.958 of pixels and mean IoU 0.843 at 32 px,
0.982 and 0.932 at 64. Blur lowers it, as the shapes go: to 0.85 at 32 px for pictures averaged over 4 x 4 pixels
(22 dB), so the reconstructions of a tokenizer have a ceiling of their own, to be measured with them. The baseline is
the same pictures against the maps of others, 0.42 (all ground: 0.52). 1,000 images of 64 px take about 4 seconds on one
core. Where a picture is larger than 64 pixels it is read at 64 (`gtool.metrics.segmenter`).

The weights come with the package; tests/benchmarks/scene_classes.py trains and measures them.

N images, H W pixels, C classes: sky, ground, shadow, sphere, box, cone, cylinder, ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gtool.metrics.images import Images, in_chunks
from gtool.metrics.segmenter import CHUNK, CHUNK_PIXELS, Segmenter, classes_of, shipped_segmenter

NAME = "scenes-classes"
PROTOCOL = "scene-classes-v1"  # of the maps that are read: raised with other weights
NUM_CLASSES = 8

Maps = NDArray[np.integer]


@dataclass(frozen=True)
class Agreement:
    """How well maps read off pictures agree with those that were wanted; shares are 0 to 1."""

    pixels: float  # share of pixels of the wanted class
    classes: NDArray[
        np.float64
    ]  # (C,) the same for the pixels of each wanted class; NaN where it is in no map
    ious: NDArray[np.float64]  # (C,) intersection over union of each class; NaN where it is in no map
    images: NDArray[np.float64]  # (N,) share of pixels, picture by picture

    @property
    def mean_iou(self) -> float:
        """The mean over the classes that are in any wanted map."""
        return float(np.nanmean(self.ious))

    def describe(self, names: Sequence[str]) -> str:
        """Return one line of percents."""
        each = zip(names, self.classes, strict=True)
        parts = ", ".join(f"{name} {100 * share:.0f}" for name, share in each if np.isfinite(share))
        return f"{100 * self.pixels:.1f} % of pixels, mean IoU {self.mean_iou:.3f} ({parts})"


def map_agreement(images: Images, maps: Maps, *, network: Segmenter | None = None) -> Agreement:
    """Compare pictures with the maps that they were generated from.

    Args:
        images: uint8 (N, 3, H, W) of scenes.
        maps: (N, H, W) of ids below C; pixels with others (no label) do not count.
        network: None takes the one of the package.
    """
    return compare_maps(read_maps(images, network), maps)


def others(count: int, seed: int) -> NDArray[np.int64]:
    """Return a number (N,) for each of N that is not its own, each once: neighbours on a shuffled ring."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(count)
    chosen = np.empty(count, np.int64)
    chosen[order] = np.roll(order, 1)
    return chosen


def read_maps(images: Images, network: Segmenter | None = None) -> NDArray[np.uint8]:
    """Return the likeliest class of every pixel, (N, H, W), of images uint8 (N, 3, H, W)."""
    network = network or shipped_segmenter(NAME, NUM_CLASSES)
    return np.concatenate([classes_of(part, network) for _, part in in_chunks(images, CHUNK, CHUNK_PIXELS)])


def compare_maps(found: Maps, wanted: Maps) -> Agreement:
    """Compare maps (N, H, W) with those that were wanted."""
    count = len(wanted)
    counts = wanted < NUM_CLASSES
    cell = (np.arange(count)[:, None, None] * NUM_CLASSES + wanted) * NUM_CLASSES + found
    table = np.bincount(cell[counts], minlength=count * NUM_CLASSES**2).reshape(
        count, NUM_CLASSES, NUM_CLASSES
    )
    both = table.sum(0).astype(np.float64)  # (C, C): wanted, found
    hits, is_wanted, is_found = both.diagonal(), both.sum(1), both.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ious = np.where(is_wanted > 0, hits / (is_wanted + is_found - hits), np.nan)
        images = table.diagonal(axis1=1, axis2=2).sum(1) / table.sum((1, 2))
        return Agreement(float(hits.sum() / both.sum()), hits / is_wanted, ious, images)
