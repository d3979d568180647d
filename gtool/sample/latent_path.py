"""A walk from latent to latent that ends where it began."""

from __future__ import annotations

import torch
from torch import Tensor

NEARLY_PARALLEL = 1e-4  # radians


def closed_walk(stations: Tensor, steps: int, *, straight: bool = False) -> Tensor:
    """Go from each latent to the next, and from the last to the first, on great circles.

    Gaussian latents of many dimensions lie near a sphere, which the straight line between two of them leaves
    (White 2016, "Sampling Generative Networks").

    Args:
        stations: (S, *z_shape), S >= 2; each component of a latent goes its own way.
        steps: latents from a station, included, to the next, excluded.
        straight: on straight lines instead: for what is not Gaussian, as w.

    Returns:
        (S x steps, *z_shape); row s x steps is station s.
    """
    share = torch.arange(steps, dtype=stations.dtype, device=stations.device).div(steps)
    share = share.view(1, -1, *[1] * (stations.ndim - 1))  # (1, steps, 1, ...)
    start, end = stations.unsqueeze(1), stations.roll(-1, dims=0).unsqueeze(1)  # (S, 1, *z_shape)
    if straight:
        return torch.lerp(start, end, share).flatten(0, 1)
    unit_start, unit_end = (torch.nn.functional.normalize(z, dim=-1) for z in (start, end))
    angle = (unit_start * unit_end).sum(-1, keepdim=True).clamp(-1, 1).acos()  # (S, 1, ..., 1)
    is_flat = angle < NEARLY_PARALLEL
    sine = torch.where(is_flat, torch.ones_like(angle), angle.sin())
    from_start = torch.where(is_flat, 1 - share, ((1 - share) * angle).sin() / sine)
    from_end = torch.where(is_flat, share, (share * angle).sin() / sine)
    return (from_start * start + from_end * end).flatten(0, 1)
