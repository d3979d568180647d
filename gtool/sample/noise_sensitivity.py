"""What the noise inputs change: many images of one latent, each with noise of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gtool.models.generate import batches, latents
from gtool.runtime.device import Compute
from gtool.runtime.random import derive_seed
from gtool.sample.latents import Components


@dataclass(frozen=True)
class Variation:
    """Statistics over draws of noise; in grey levels of 0 to 255."""

    mean: Tensor  # (3, R, R)
    spread: Tensor  # (R, R), standard deviation, root mean square over colours


def noise_variation(
    generator: Any,
    seed: int,
    number: int,
    compute: Compute,
    *,
    draws: int,
    batch_size: int,
    components: Components | None = None,
) -> Variation:
    """Make an image `draws` times with other noise, never all of them in memory.

    Args:
        generator, seed, number, compute: as of `batches`, for one image number.
        draws: how many; draw j depends on (seed, number, j) alone.
        batch_size: images per forward.
        components: makes the w, where truncation is wanted.
    """
    one = torch.tensor([number])
    z = latents(generator, seed, one)
    made = batches(
        generator,
        derive_seed("noise-variation", seed, number),
        torch.arange(draws),
        compute,
        batch_size=min(batch_size, draws),
        z=z.expand(draws, *z.shape[1:]),
        ws=None if components is None else components.plain(one.expand(draws)),
    )
    total = torch.zeros((), dtype=torch.float64)
    squares = torch.zeros((), dtype=torch.float64)
    for images, _ in made:
        levels = images.cpu().double().clamp(-1, 1).add(1).mul(127.5)
        total = total + levels.sum(0)
        squares = squares + levels.square().sum(0)
    mean = total / draws
    variance = (squares / draws - mean.square()).clamp(min=0).mean(0)
    return Variation(mean.float(), variance.sqrt().float())
