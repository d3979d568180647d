"""Latent components at work: truncation, and images that take some components from others.

For generators with `mapping`, `broadcast`, `synthesis` and `num_ws`, as GANsformer's. Axis letters: N images, K
components with the global one last, d width of a component, L layers that take a w.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gtool.models.generate import WsOfRows, latents
from gtool.runtime.device import Compute
from gtool.sample.latent_path import closed_walk

MEAN_LATENTS = 4096
MEAN_CHUNK = 512
MEAN_STREAM = "mean-w"


@torch.no_grad()
def mean_w(generator: Any, compute: Compute) -> Tensor:
    """Return the mean w (K, d) of always the same latents: it depends on the weights alone."""
    total = torch.zeros(generator.z_shape, dtype=torch.float64)
    for start in range(0, MEAN_LATENTS, MEAN_CHUNK):
        numbers = torch.arange(start, start + MEAN_CHUNK)
        w = generator.mapping(latents(generator, 0, numbers, MEAN_STREAM).to(compute.device))
        total += w.cpu().double().sum(0)
    return (total / MEAN_LATENTS).float().to(compute.device)


def truncate(w: Tensor, mean: Tensor, psi: float | Tensor) -> Tensor:
    """Pull each component of w (N, K, d) to its own mean (K, d); psi a number, or one for each image (N,)."""
    share = torch.as_tensor(psi, dtype=w.dtype, device=w.device).view(-1, 1, 1)
    return torch.lerp(mean.expand_as(w), w, share)  # exactly w at 1


class Components:
    """What images of a generator are made of where more than their numbers decides it."""

    def __init__(self, generator: Any, compute: Compute, seed: int, psi: float = 1.0) -> None:
        """Arguments as of `generation.batches`; `psi` 1 leaves w as the mapping makes it."""
        self.generator = generator
        self.compute = compute
        self.seed = seed
        self.psi = psi

    @cached_property
    def mean(self) -> Tensor:
        """What truncation pulls to (K, d)."""
        return mean_w(self.generator, self.compute)

    def w(self, z: Tensor, psi: Tensor | None = None) -> Tensor:
        """z (N, K, d) -> w (N, K, d) on the device, truncated; psi (N,) takes the place of the one for all."""
        w: Tensor = self.generator.mapping(z.to(self.compute.device))
        if psi is None and self.psi == 1:
            return w
        return truncate(w, self.mean, self.psi if psi is None else psi)

    def of(self, indices: Tensor, psi: Tensor | None = None) -> Tensor:
        """Image numbers (N,) -> truncated w (N, K, d)."""
        return self.w(latents(self.generator, self.seed, indices), psi)

    def plain(self, indices: Tensor, psi: Tensor | None = None) -> WsOfRows:
        """Make the images of these numbers; psi (N,) where each has its own."""
        return lambda rows: self._broadcast(self.of(indices[rows], None if psi is None else psi[rows]))

    def mixed(self, targets: Tensor, sources: Tensor, taken: Tensor) -> WsOfRows:
        """Make the images of `targets` (N,) with what `taken` (N, L, K) marks from those of `sources` (N,)."""

        def ws(rows: Tensor) -> Tensor:
            kept, given = (self._broadcast(self.of(numbers[rows])) for numbers in (targets, sources))
            return torch.where(taken[rows].to(kept.device)[..., None], given, kept)

        return ws

    def walk(
        self, stations: Tensor, steps: int, *, moving: Collection[int] | None = None, in_w: bool = False
    ) -> WsOfRows:
        """Go from image to image and back, `steps` from one to the next, as `closed_walk`.

        Args:
            stations: image numbers (S,).
            steps: images from a station, included, to the next, excluded.
            moving: components that move, the others stay those of the first station; None moves all.
            in_w: go straight between the w, in place of great circles between the z.
        """
        with torch.no_grad():
            first = self.of(stations[:1])
            if in_w:
                path = closed_walk(self.of(stations), steps, straight=True)
            else:
                path = closed_walk(latents(self.generator, self.seed, stations), steps)
        count = first.shape[1]
        chosen = range(count) if moving is None else moving
        is_moving = torch.tensor([place in chosen for place in range(count)], device=first.device)

        def ws(rows: Tensor) -> Tensor:
            w = path[rows.to(path.device)] if in_w else self.w(path[rows])
            # Components attend to each other in the mapping: one that moves in z alone would move the others in w.
            return self._broadcast(torch.where(is_moving[:, None], w, first))

        return ws

    def _broadcast(self, w: Tensor) -> Tensor:
        ws: Tensor = self.generator.broadcast(w)
        return ws
