"""Attention scored against objects (`attention-v1`): every layer and head, with baselines and intervals.

For each layer and head, means over images with 95 % bootstrap intervals:
- ari, ari_fg, miou, best_iou, figure_iou, correlation: agreement with the objects (gtool/metrics/objects.py);
- entropy (0 to 1), usage (components, 1 to k), and sensitivity: the share of attention that moves when the
  local latents change and the global one stays. 0 says that the maps do not depend on the local latents.

Beside them four baselines on the same pictures: `permuted` (the maps of image i against the masks of image
i + 1), `untrained` (the maps of an untrained model against the same masks), `grid` (k fixed cells) and
`kmeans` (k clusters of colour and place).

The best layer is picked on the images of even number and reported on those of odd number, and so is the
untrained model's own best one: a score is not chosen and measured on the same images. A margin is the mean
difference to a baseline over the same images; attention beats it when the interval lies above 0.

N images, k components, R pixels per side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gtool.errors import DataError
from gtool.metrics import segmentation_agreement as scoring
from gtool.metrics.bootstrap import Interval, Resampler
from gtool.metrics.images import Images
from gtool.metrics.partitions import grid_cells, kmeans_cells
from gtool.metrics.segmentation_agreement import MEASURES, Labels, Values

PROTOCOL = "attention-v1"
PICKED_BY = ("ari", "ari_fg", "figure_iou", "miou", "correlation")
CHUNK_PIXELS = 64 * 64 * 64  # of the images scored at once

Maps = Mapping[str, Tensor]  # layer -> (N, heads, k, h, w)
Place = tuple[str, int]  # layer and head
Scores = dict[str, Values]  # measure -> (N,), NaN for images that have no say


@dataclass(frozen=True)
class _Scored:
    """One model's maps, scored image by image."""

    scores: dict[Place, Scores]
    permuted: dict[Place, Scores]
    shares: dict[Place, Values]  # (N, k)
    sides: dict[Place, int]


def score_attention(
    images: Images,
    objects: Labels,
    maps: Maps,
    *,
    untrained: Maps | None = None,
    changed: Maps | None = None,
    seed: int = 0,
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
        Every score is {value, low, high}, None where no image has a say.

    Raises:
        DataError: too few images, or no image with an object.
    """
    count = len(images)
    number = _presence(objects).sum(1)
    if count < 4 or not number.any():
        raise DataError(
            f"attention is scored on 4 images with objects or more; got {count}, {int((number > 0).sum())} of "
            "them with objects: take more images, or a generator that has learned some"
        )
    num_components = next(iter(maps.values())).shape[2]
    ours = _score(maps, objects)
    theirs = _score(untrained, objects) if untrained else None
    for place, scores in ours.scores.items():
        scores["sensitivity"] = _moved(place, maps, changed) if changed else np.full(count, np.nan)
    baselines = _partitions(images, objects, num_components, seed)
    resample = Resampler(count, seed)
    return {
        "protocol": PROTOCOL,
        "num_images": count,
        "num_scored": int((number > 0).sum()),
        "num_scored_fg": int((number > 1).sum()),
        "objects_per_image": float(number.mean()),
        "num_components": num_components,
        "layers": [_row(place, ours, theirs, resample) for place in ours.scores],
        "baselines": {name: _means(scores, resample) for name, scores in baselines.items()},
        "picked": {name: _pick(name, ours, theirs, baselines, seed) for name in PICKED_BY},
    }


def _presence(objects: Labels) -> NDArray[np.bool_]:
    """Say which ids above 0 occur in each image, (N, M - 1)."""
    return scoring.contingency(np.zeros_like(objects), objects, 1)[:, 0, 1:] > 0


def _score(maps: Maps, objects: Labels) -> _Scored:
    """Score every layer and head against the masks and against those of the next image."""
    scored = _Scored({}, {}, {}, {})
    resolution = objects.shape[-1]
    step = max(1, CHUNK_PIXELS // resolution**2)
    permuted = np.roll(objects, -1, axis=0)
    for layer, all_heads in maps.items():
        for head in range(all_heads.shape[1]):
            one = all_heads[:, head]
            parts: tuple[list[Scores], list[Scores]] = ([], [])
            for start in range(0, len(objects), step):
                part = slice(start, start + step)
                large = scoring.to_image_size(one[part], resolution)
                health = {"entropy": scoring.entropy(one[part])}
                parts[0].append(scoring.score_maps(large, objects[part]) | health)
                parts[1].append(scoring.score_maps(large, permuted[part]))
            place = layer, head
            scored.scores[place], scored.permuted[place] = map(_join, parts)
            scored.shares[place] = scoring.mass(one)
            scored.sides[place] = one.shape[-1]
    return scored


def _join(parts: list[Scores]) -> Scores:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _moved(place: Place, maps: Maps, changed: Maps) -> Values:
    layer, head = place
    return scoring.moved(maps[layer][:, head], changed[layer][:, head])


def _partitions(images: Images, objects: Labels, count: int, seed: int) -> dict[str, Scores]:
    """Score the partitions that need no attention."""
    grid = np.broadcast_to(grid_cells(count, objects.shape[-1]), objects.shape)
    found: dict[str, Scores] = {}
    for name, labels in {"grid": grid, "kmeans": kmeans_cells(images, count, seed)}.items():
        step = max(1, CHUNK_PIXELS // objects.shape[-1] ** 2)
        slices = [slice(start, start + step) for start in range(0, len(objects), step)]
        found[name] = _join([scoring.score_partition(labels[s], objects[s], count) for s in slices])
    return found


def _means(scores: Scores, resample: Resampler) -> dict[str, Interval]:
    return {name: resample.mean(values) for name, values in scores.items()}


def _row(place: Place, ours: _Scored, theirs: _Scored | None, resample: Resampler) -> dict[str, Any]:
    def all_means(model: _Scored) -> dict[str, Interval]:
        used = resample.of_mean(model.shares[place], scoring.usage)
        return _means(model.scores[place], resample) | {"usage": used}

    return {
        "layer": place[0],
        "head": place[1],
        "side": ours.sides[place],
        "scores": all_means(ours),
        "permuted": _means(ours.permuted[place], resample),
        "untrained": all_means(theirs) if theirs else None,
    }


def _pick(
    measure: str, ours: _Scored, theirs: _Scored | None, baselines: dict[str, Scores], seed: int
) -> dict[str, Any]:
    """Pick the best layer by a measure on the even images; report it and the baselines on the odd ones."""
    best = _best(ours, measure)
    values = ours.scores[best][measure]
    resample = Resampler(len(values) // 2, seed)
    contestants = {"permuted": (best, ours.permuted[best])}
    if theirs:
        own = _best(theirs, measure)
        contestants["untrained"] = (own, theirs.scores[own])
    contestants |= {name: (("", 0), scores) for name, scores in baselines.items()}
    row: dict[str, Any] = {"attention": {**resample.mean(values[1::2]), **_named(best)}}
    for name, (place, scores) in contestants.items():
        margin = resample.mean((values - scores[measure])[1::2])
        row[name] = {**resample.mean(scores[measure][1::2]), **_named(place), "margin": margin}
    return row


def _best(model: _Scored, measure: str) -> Place:
    def on_even(place: Place) -> float:
        values = model.scores[place][measure][::2]
        return float(np.nanmean(values)) if np.isfinite(values).any() else -np.inf

    return max(model.scores, key=on_even)


def _named(place: Place) -> dict[str, Any]:
    return {"layer": place[0], "head": place[1]} if place[0] else {}


# Tables of a record, as text.


def layer_table(record: dict[str, Any]) -> list[list[str]]:
    """Return heads and rows: every layer with its permuted and untrained scores, then the other baselines."""
    names = [*MEASURES, "entropy", "usage", "sensitivity"]
    several = any(row["head"] for row in record["layers"])
    rows = [["", *names]]
    for row in record["layers"]:
        name = f"{row['layer']} head {row['head']}" if several else row["layer"]
        rows.append([name, *_texts(row["scores"], names)])
        rows.append(["  permuted", *_texts(row["permuted"], names)])
        if row["untrained"]:
            rows.append(["  untrained", *_texts(row["untrained"], names)])
    rows += [[name, *_texts(scores, names)] for name, scores in record["baselines"].items()]
    return rows


def picked_table(record: dict[str, Any]) -> list[list[str]]:
    """Return heads and rows: for each measure the picked layer, what it reaches, and the baselines.

    A baseline whose margin to attention has its interval above 0 is marked as beaten.
    """
    contestants = list(record["picked"][PICKED_BY[0]])
    rows = [["picked by", "layer", *contestants]]
    for name, scores in record["picked"].items():
        best = scores["attention"]
        texts = [_text(scores[one]) + _verdict(scores[one].get("margin")) for one in contestants]
        rows.append([name, f"{best['layer']} head {best['head']}", *texts])
    return rows


def _verdict(margin: Interval | None) -> str:
    return " beaten" if margin and margin["low"] is not None and margin["low"] > 0 else ""


def _texts(scores: dict[str, Interval], names: list[str]) -> list[str]:
    """Each score with half the width of its interval."""
    return [_text(scores.get(name)) for name in names]


def _text(score: Interval | None) -> str:
    if score is None or score["value"] is None or score["low"] is None or score["high"] is None:
        return "-"
    return f"{score['value']:.3f} ±{(score['high'] - score['low']) / 2:.3f}"
