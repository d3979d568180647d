"""Partitions of pictures that know nothing of attention: what its scores are compared with.

N images, R pixels per side, P = R x R, k parts.
"""

import math

import numpy as np
import torch
from torch import Tensor

from gtool.metrics.images import Images, in_chunks
from gtool.metrics.segmentation_agreement import Labels
from gtool.runtime.precision import full_fp32
from gtool.runtime.random import hashed_uniform

ITERATIONS = 20
CHUNK, CHUNK_PIXELS = 64, 64 * 64 * 64


def grid_cells(count: int, resolution: int) -> Labels:
    """Return `count` equal cells (R, R) in the squarest rows and columns there are, not higher than wide."""
    rows = next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    place = np.arange(resolution)
    cells: Labels = (place * rows // resolution)[:, None] * (count // rows)
    return cells + place * (count // rows) // resolution


def kmeans_cells(images: Images, count: int, seed: int = 0) -> Labels:
    """Cluster each image's pixels by colour and place, five numbers of 0 to 1: (N, R, R), image by image.

    images: uint8 (N, 3, R, R). Lloyd's algorithm from k-means++ centres (Arthur and Vassilvitskii 2007); the
    draws of image i depend on (seed, i) alone.
    """
    parts = []
    for start, chunk in in_chunks(images, CHUNK, CHUNK_PIXELS):
        draws = hashed_uniform(seed, np.arange(start, start + len(chunk)), count, "kmeans")
        parts.append(_cluster(chunk, torch.from_numpy(draws).float()))
    return torch.cat(parts).numpy()


@torch.no_grad()
@full_fp32()
def _cluster(images: Tensor, draws: Tensor) -> Tensor:
    count, _, height, width = images.shape
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    place = torch.stack([y, x]).expand(count, 2, height, width)
    points = torch.cat([images / 255.0, place], dim=1).flatten(2).transpose(1, 2)  # (N, P, 5)
    centres = _spread(points, draws)
    nearest = _nearest(points, centres)
    for _ in range(ITERATIONS):
        member = torch.nn.functional.one_hot(nearest, draws.shape[1]).float()  # (N, P, k)
        size = member.sum(1)[..., None]
        # A centre that nothing is nearest to stays where it is.
        centres = torch.where(size > 0, member.transpose(1, 2) @ points / size.clamp_min(1), centres)
        before, nearest = nearest, _nearest(points, centres)
        if torch.equal(before, nearest):
            break
    return nearest.view(count, height, width)


def _spread(points: Tensor, draws: Tensor) -> Tensor:
    """Choose centres (N, k, 5) one by one, each with a chance that grows with the square of its distance."""
    chance = points.new_ones(points.shape[:2])
    centres: list[Tensor] = []
    for draw in draws.T:
        sums = chance.double().cumsum(1)  # (N, P)
        chosen = torch.searchsorted(sums, draw[:, None].double() * sums[:, -1:])
        chosen = chosen.clamp_max(points.shape[1] - 1)
        centre = points.gather(1, chosen[..., None].expand(-1, -1, points.shape[2]))  # (N, 1, 5)
        distance = (points - centre).square().sum(2)
        chance = torch.minimum(chance, distance) if centres else distance
        centres.append(centre)
    return torch.cat(centres, dim=1)


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    # |p - c|^2 without |p|^2, which is the same for every centre.
    return (centres.square().sum(2)[:, None] - 2 * points @ centres.transpose(1, 2)).argmin(2)
