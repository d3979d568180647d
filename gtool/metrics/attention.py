"""Attention scored against objects (`attention-v1`): every layer and head, with baselines and intervals.

For each layer and head, means over images with 95 % bootstrap intervals:
- ari, ari_fg, miou, mbo, figure_iou, correlation: agreement with the objects (segmentation_agreement.py);
- entropy (0 to 1), usage (components, 1 to k), and sensitivity: the share of attention that moves when the local
  latents change and the global one stays. 0 says that the maps do not depend on the local latents.

Beside them four baselines on the same pictures: `permuted` (the maps of image i against the masks of image i + 1),
`untrained` (the maps of an untrained model against the same masks), `grid` (k fixed cells) and `kmeans` (k clusters of
colour and place).

The best layer is picked on the images of even number and reported on those of odd number, and so is the untrained
model's own best one: a score is not chosen and measured on the same images. A margin is the mean difference to a
baseline over the same images; attention beats it when the interval lies above 0.

N images, k components, R pixels per side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gtool.errors import DataError
from gtool.metrics import segmentation_agreement as scoring
from gtool.metrics.images import Images
from gtool.metrics.partitions import grid_cells, kmeans_cells
from gtool.metrics.segmentation_agreement import MEASURES, Labels, Values

PROTOCOL = "attention-v1"
PICKED_BY = ("ari", "ari_fg", "mbo", "figure_iou", "miou", "correlation")
CHUNK_PIXELS = 64 * 64 * 64  # of the images scored at once
RESAMPLES = 1000
LEVELS = (2.5, 97.5)  # percentiles

Maps = Mapping[str, Tensor]  # layer -> (N, heads, k, h, w)
Place = tuple[str, int]  # layer and head
Scores = dict[str, Values]  # measure -> (N,), NaN for images that have no say
Interval = dict[str, float | None]  # value, low, high; None where no image has a say


class Resampler:
    """The same resamples of N images for every number, so that differences are those of paired images."""

    def __init__(self, count: int, seed: int = 0) -> None:
        # RandomState, because NumPy promises that its stream never changes.
        chosen = np.random.RandomState(seed % 2**32).randint(0, count, (RESAMPLES, count))
        cell = np.arange(RESAMPLES)[:, None] * count + chosen
        weights = np.bincount(cell.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count)
        self.weights = weights.astype(np.float64)  # how often each image occurs

    def mean(self, values: Values) -> Interval:
        """Return the mean of values (N,), NaN for images that have no say, and its interval."""
        counts = np.isfinite(values)
        if not counts.any():
            return {"value": None, "low": None, "high": None}
        number = self.weights @ counts
        means = (self.weights @ np.where(counts, values, 0))[number > 0] / number[number > 0]
        low, high = np.percentile(means, LEVELS)
        return {"value": float(values[counts].mean()), "low": float(low), "high": float(high)}

    def means(self, scores: Scores) -> dict[str, Interval]:
        return {name: self.mean(values) for name, values in scores.items()}

    def of_mean(self, rows: NDArray[np.float64], function: Callable[[Values], Values]) -> Interval:
        """Return `function` of the mean of rows (N, k), with its interval."""
        low, high = np.percentile(function(self.weights @ rows / len(rows)), LEVELS)
        return {"value": float(function(rows.mean(0))), "low": float(low), "high": float(high)}


def score_attention(
    images: Images, objects: Labels, maps: Maps, *, untrained: Maps, changed: Maps, seed: int = 0
) -> dict[str, Any]:
    """Score attention maps against object masks.

    Args:
        images: uint8 (N, 3, R, R), N >= 4.
        objects: integers (N, R, R): 0 ground, then the objects of each image, as `find_objects` numbers them.
        maps: (N, heads, k, h, w) of any float type, on the CPU, for every layer.
        untrained: maps of the same shapes by the untrained model, from the same latents.
        changed: maps of the same images when other local latents are taken, for the sensitivity.
        seed: of the resamples and of the clusters.

    Returns:
        A JSON-able record: protocol, num_images, num_scored (with an object), num_scored_fg (with two),
        objects_per_image, num_components, `layers` (a list of layer, head, side, scores, permuted, untrained),
        `baselines` (grid, kmeans) and `picked` (by measure: attention, permuted, untrained, grid, kmeans).

    Raises:
        DataError: too few images, or no image with an object.
    """
    count = len(images)
    number = (scoring.contingency(np.zeros_like(objects), objects, 1)[:, 0, 1:] > 0).sum(1)  # of objects
    if count < 4 or not number.any():
        raise DataError(
            f"attention is scored on 4 images with objects or more; got {count}, {int((number > 0).sum())} of "
            "them with objects: take more images, or a generator that has learned some"
        )
    num_components = next(iter(maps.values())).shape[2]
    ours, theirs = _score(maps, objects), _score(untrained, objects)
    permuted = _score(maps, np.roll(objects, -1, axis=0))
    grid = np.broadcast_to(grid_cells(num_components, objects.shape[-1]), objects.shape)
    baselines = {
        name: _in_parts(objects, scoring.score_partition, labels, objects, num_components)
        for name, labels in {"grid": grid, "kmeans": kmeans_cells(images, num_components, seed)}.items()
    }
    resample = Resampler(count, seed)
    return {
        "protocol": PROTOCOL,
        "num_images": count,
        "num_scored": int((number > 0).sum()),
        "num_scored_fg": int((number > 1).sum()),
        "objects_per_image": float(number.mean()),
        "num_components": num_components,
        "layers": [
            {
                "layer": layer,
                "head": head,
                "side": maps[layer].shape[-1],
                "scores": _means(resample, ours[layer, head], maps[layer][:, head], changed[layer][:, head]),
                "permuted": resample.means(permuted[layer, head]),
                "untrained": _means(resample, theirs[layer, head], untrained[layer][:, head]),
            }
            for layer, head in ours
        ],
        "baselines": {name: resample.means(scores) for name, scores in baselines.items()},
        "picked": {name: _pick(name, ours, permuted, theirs, baselines, seed) for name in PICKED_BY},
    }


def _score(maps: Maps, objects: Labels) -> dict[Place, Scores]:
    """Score every layer and head against masks (N, R, R)."""
    return {
        (layer, head): _in_parts(objects, scoring.score_maps, heads[:, head], objects)
        for layer, heads in maps.items()
        for head in range(heads.shape[1])
    }


def _means(
    resample: Resampler, scores: Scores, maps: Tensor, changed: Tensor | None = None
) -> dict[str, Interval]:
    """Return means of scores and of what needs no masks, of maps (N, k, h, w)."""
    scores = scores | {"entropy": _in_parts(maps, scoring.entropy, maps)}
    if changed is not None:
        scores["sensitivity"] = scoring.moved(maps, changed)
    return resample.means(scores) | {"usage": resample.of_mean(scoring.mass(maps), scoring.usage)}


def _in_parts(images: Labels | Tensor, function: Callable[..., Any], *arguments: Any) -> Any:
    """Join what a function returns for parts of the images (N, ..., R, R), which bound the memory; arrays are cut."""
    step = max(1, CHUNK_PIXELS // images.shape[-1] ** 2)
    parts = [
        function(*(one if isinstance(one, int) else one[start : start + step] for one in arguments))
        for start in range(0, len(images), step)
    ]
    if not isinstance(parts[0], dict):
        return np.concatenate(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _pick(
    measure: str,
    ours: dict[Place, Scores],
    permuted: dict[Place, Scores],
    theirs: dict[Place, Scores],
    baselines: dict[str, Scores],
    seed: int,
) -> dict[str, Any]:
    """Pick the best layer by a measure on the even images; report it and the baselines on the odd ones."""

    def best_of(model: dict[Place, Scores]) -> Place:
        def on_even(place: Place) -> float:
            values = model[place][measure][::2]
            return float(np.nanmean(values)) if np.isfinite(values).any() else -np.inf

        return max(model, key=on_even)

    best, own = best_of(ours), best_of(theirs)
    contestants: dict[str, tuple[Place | None, Scores]] = {"permuted": (best, permuted[best])}
    contestants |= {"untrained": (own, theirs[own])}
    contestants |= {name: (None, scores) for name, scores in baselines.items()}
    values = ours[best][measure]
    resample = Resampler(len(values) // 2, seed)
    row: dict[str, Any] = {"attention": resample.mean(values[1::2]) | _named(best)}
    for name, (place, scores) in contestants.items():
        margin = resample.mean((values - scores[measure])[1::2])
        row[name] = {**resample.mean(scores[measure][1::2]), **_named(place), "margin": margin}
    return row


def _named(place: Place | None) -> dict[str, Any]:
    return {"layer": place[0], "head": place[1]} if place else {}


# Tables of a record, as text.


def layer_table(record: dict[str, Any]) -> list[list[str]]:
    """Return heads and rows: every layer with its permuted and untrained scores, then the other baselines."""
    names = [*MEASURES, "entropy", "usage", "sensitivity"]
    several = any(row["head"] for row in record["layers"])
    found = []
    for row in record["layers"]:
        name = f"{row['layer']} head {row['head']}" if several else row["layer"]
        found += [(name, row["scores"]), ("  permuted", row["permuted"]), ("  untrained", row["untrained"])]
    found += record["baselines"].items()
    return [["", *names]] + [[name, *(_text(scores.get(one)) for one in names)] for name, scores in found]


def picked_table(record: dict[str, Any]) -> list[list[str]]:
    """Return heads and rows: for each measure the picked layer, what it reaches, and the baselines.

    A baseline whose margin to attention has its interval above 0 is marked as beaten.
    """
    contestants = list(record["picked"][PICKED_BY[0]])
    rows = [["picked by", "layer", *contestants]]
    for name, scores in record["picked"].items():
        texts = []
        for one in contestants:
            margin = scores[one].get("margin")
            texts.append(_text(scores[one]) + (" beaten" if margin and (margin["low"] or 0) > 0 else ""))
        rows.append([name, "{layer} head {head}".format(**scores["attention"]), *texts])
    return rows


def _text(score: Interval | None) -> str:
    """Write a score with half the width of its interval."""
    if score is None or score["value"] is None or score["low"] is None or score["high"] is None:
        return "-"
    return f"{score['value']:.3f} ±{(score['high'] - score['low']) / 2:.3f}"
