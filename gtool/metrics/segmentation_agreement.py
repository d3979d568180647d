"""How well the parts of a picture (attention components, clusters) agree with its objects.

Every function takes many images at once and returns one number for each, NaN where an image has no say:
- An image without objects counts nowhere; foreground ARI needs two objects, as one cannot be told apart.
- A hard partition gives each pixel to the component with the largest map, the first of equals.
- Objects are the masks 1, 2, ...; ground (0) is part of the full-image ARI and of the figure-ground IoU, and
  no mask of its own in the others.

ARI: Hubert and Arabie 1985 (Comparing partitions), the adjusted index. mbo, mean best overlap: the IoU of each object
with the component that fits it best; it sees loose masks, which foreground ARI does not. Correlation after Hudson and
Zitnick 2021 (Generative Adversarial Transformers): soft maps against masks, the best component of each mask.

N images, k components, M = 1 + the most objects of an image, R pixels per side, P = R x R, h w a map's own grid.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Values = NDArray[np.float64]  # (N,), NaN where an image has no say
Labels = NDArray[np.integer]

MEASURES = ("ari", "ari_fg", "miou", "mbo", "figure_iou", "correlation")


def to_image_size(maps: Tensor, resolution: int) -> Tensor:
    """Bring maps (N, k, h, w) of any float type to (N, k, R, R) fp32, bilinearly."""
    maps, size = maps.float(), (resolution, resolution)
    return maps if maps.shape[2:] == size else F.interpolate(maps, size=size, mode="bilinear")


def score_maps(maps: Tensor, objects: Labels) -> dict[str, Values]:
    """Score soft maps (N, k, h, w) against object ids (N, R, R): MEASURES, (N,) each."""
    maps = to_image_size(maps, objects.shape[-1])
    scores = score_labels(maps.argmax(1).numpy(), objects, maps.shape[1])
    return scores | {"correlation": correlation(maps, objects)}


def score_partition(labels: Labels, objects: Labels, count: int) -> dict[str, Values]:
    """Score a hard partition (N, R, R) into `count` parts as `score_maps` does its one-hot maps."""
    maps = F.one_hot(torch.from_numpy(labels.astype(np.int64)), count).permute(0, 3, 1, 2).float()
    return score_maps(maps, objects)


def score_labels(labels: Labels, objects: Labels, count: int) -> dict[str, Values]:
    """Score a hard partition (N, R, R) into `count` parts: MEASURES without the correlation."""
    table = contingency(labels, objects, count)
    num_objects = (table.sum(1)[:, 1:] > 0).sum(1)
    best, matched = mask_ious(table)
    scores = {
        "ari": adjusted_rand(table),
        "ari_fg": np.where(num_objects > 1, adjusted_rand(table[:, :, 1:]), np.nan),
        "miou": matched,
        "mbo": best,
        "figure_iou": figure_iou(table, ground_component(labels, count)),
    }
    return {name: np.where(num_objects > 0, values, np.nan) for name, values in scores.items()}


def contingency(labels: Labels, objects: Labels, count: int) -> NDArray[np.int64]:
    """Return how many pixels each component shares with each id: (N, count, M)."""
    num_images, num_ids = len(labels), int(objects.max(initial=0)) + 1
    cell = (np.arange(num_images)[:, None, None] * count + labels) * num_ids + objects
    table = np.bincount(cell.ravel(), minlength=num_images * count * num_ids)
    return table.reshape(num_images, count, num_ids)


def adjusted_rand(table: NDArray[np.int64]) -> Values:
    """Return the adjusted Rand index (N,) of tables (N, k, M): 1 equal partitions, 0 as by chance.

    Two partitions that are both of one part, or both of single pixels, are equal; below two pixels NaN.
    """
    joint = _pairs(table).sum((1, 2))
    rows, columns = _pairs(table.sum(2)).sum(1), _pairs(table.sum(1)).sum(1)
    total = _pairs(table.sum((1, 2)))
    with np.errstate(invalid="ignore", divide="ignore"):
        chance, most = rows * columns / total, (rows + columns) / 2
        index: Values = np.where(most == chance, 1.0, (joint - chance) / (most - chance))
    return np.where(total > 0, index, np.nan)


def _pairs(count: NDArray[np.int64]) -> Values:
    number = count.astype(np.float64)
    return number * (number - 1) / 2


def mask_ious(table: NDArray[np.int64]) -> tuple[Values, Values]:
    """Return two means over the objects of an image, (N,) each; NaN without objects.

    The IoU of each object's best component, which several may share; and that of the best one-to-one
    matching, where an object that is left without a component counts 0.
    """
    from scipy.optimize import linear_sum_assignment

    shared = table[:, :, 1:].astype(np.float64)
    united = table.sum(2)[:, :, None] + table.sum(1)[:, None, 1:] - shared
    iou = shared / np.maximum(united, 1)  # (N, k, M - 1); an absent object's column is 0
    number = (table.sum(1)[:, 1:] > 0).sum(1)
    matched = np.zeros(len(table))
    for image, costs in enumerate(iou):
        matched[image] = costs[linear_sum_assignment(costs, maximize=True)].sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        return iou.max(1).sum(1) / number, matched / number


def ground_component(labels: Labels, count: int) -> NDArray[np.int64]:
    """Return the component (N,) that holds most pixels of the image's border, the first of equals."""
    edges = (labels[:, 0], labels[:, -1], labels[:, 1:-1, 0], labels[:, 1:-1, -1])
    border = np.concatenate(edges, axis=1)  # (N, 4 R - 4)
    cell = np.arange(len(labels))[:, None] * count + border
    return np.bincount(cell.ravel(), minlength=len(labels) * count).reshape(-1, count).argmax(1)


def figure_iou(table: NDArray[np.int64], ground: NDArray[np.int64]) -> Values:
    """Return the IoU (N,) of everything but the ground component with all objects together."""
    objects = table[:, :, 1:].sum((1, 2))
    rows = np.arange(len(table)), ground
    figure = table.sum((1, 2)) - table.sum(2)[rows]
    shared = objects - table[:, :, 1:].sum(2)[rows]
    with np.errstate(invalid="ignore", divide="ignore"):
        return shared / (figure + objects - shared)


def correlation(maps: Tensor, objects: Labels) -> Values:
    """Return the mean over objects of the largest |Pearson| of a map (N, k, R, R) with its mask; (N,).

    A constant map correlates 0 with everything; NaN without objects.
    """
    num_ids = int(objects.max(initial=0)) + 1
    masks = F.one_hot(torch.from_numpy(objects.astype(np.int64)).flatten(1), num_ids)[..., 1:]
    present = masks.any(1)  # (N, M - 1)
    if not present.shape[1]:
        return np.full(len(objects), np.nan)

    def standard(rows: Tensor) -> Tensor:  # (..., P); what varies by rounding alone counts as constant
        rows = rows - rows.mean(-1, keepdim=True)
        return rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-4)

    pearson = standard(maps.flatten(2)) @ standard(masks.transpose(1, 2).float()).transpose(1, 2)
    best = (pearson.abs().amax(1) * present).double().sum(1)
    return (best / present.sum(1)).numpy()  # 0 / 0 is NaN


def entropy(maps: Tensor) -> Values:
    """Return the mean over pixels of each pixel's entropy in units of ln k: maps (N, k, h, w) to (N,) in [0, 1].

    0: every pixel attends to one component; 1: to all alike. Maps that do not sum to 1 are brought to it.
    """
    share = maps.float() / maps.float().sum(1, keepdim=True).clamp_min(1e-12)
    total = torch.special.entr(share).sum(1).mean((1, 2)).double()
    return (total / np.log(maps.shape[1])).numpy() if maps.shape[1] > 1 else np.zeros(len(maps))


def mass(maps: Tensor) -> Values:
    """Return the share of all attention that each component holds, (N, k)."""
    held = maps.float().mean((2, 3)).double()
    return (held / held.sum(1, keepdim=True)).numpy()


def usage(shares: Values) -> Values:
    """Return exp(entropy) of shares (..., k): how many components are in use, 1 to k."""
    return torch.special.entr(torch.from_numpy(shares)).sum(-1).exp().numpy()


def moved(maps: Tensor, others: Tensor) -> Values:
    """Return the share of attention (N,) that lies elsewhere in other maps of the same shape (N, k, h, w)."""
    return (maps.float() - others.float()).abs().sum(1).mean((1, 2)).double().div(2).numpy()
