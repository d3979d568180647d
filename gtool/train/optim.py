"""Optimizers, gradient clipping, the moving average of weights, and schedules: the same for every family.

progress: share of the run that is done, in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gtool.config.schema import OptimRecipe, Recipe
from gtool.runtime.device import Compute


def make_optimizer(
    optim: OptimRecipe,
    parameters: Iterable[Any],
    rate: float | None = None,
    *,
    betas: tuple[float, float] | None = None,
) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe.

    Args:
        optim: the recipe's section.
        parameters: tensors, or groups that may have settings of their own.
        rate: learning rate in place of the recipe's.
        betas: likewise.
    """
    kind = torch.optim.Adam if optim.kind == "adam" else torch.optim.AdamW
    return kind(
        parameters,
        lr=optim.learning_rate if rate is None else rate,
        betas=betas or optim.betas,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        fused=True,
    )


def set_rate(optimizer: Any, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_and_step(compute: Compute, network: nn.Module, optimizer: Any, limit: float | None) -> Tensor:
    """Clip the norm of the gradients to `limit` (None: no limit) and step; return the norm before clipping."""
    norm = compute.accelerator.clip_grad_norm_(network.parameters(), limit or math.inf)
    optimizer.step()
    return norm.detach()


@torch.no_grad()
def ema_update(
    ema: nn.Module, network: nn.Module, beta: float, buffers: Literal["keep", "copy", "average"] = "keep"
) -> None:
    """Move the averaged parameters towards those in training; `beta` of the old average stays.

    buffers: of the average: left alone, copied from the network, or averaged as well where they are floats.
    """
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1.0 - beta)
    trained = dict(network.named_buffers())  # may have some that the average lacks
    for name, averaged in ema.named_buffers():
        if buffers == "copy":
            averaged.copy_(trained[name])
        elif buffers == "average" and averaged.is_floating_point():
            averaged.lerp_(trained[name], 1.0 - beta)


def ema_beta(recipe: Recipe, nimg: int) -> float:
    """Return the share of the old average that survives a step: 0.5 after ema_kimg images.

    The TransGAN release counts the images of one discriminator update and averages once in n_critic of them, which
    makes its half-life n_critic times longer than stated.
    """
    train = recipe.train
    if train.ema_decay is not None:
        return train.ema_decay
    half_life = 1000 * train.ema_kimg
    if train.ema_rampup:
        half_life = min(half_life, train.ema_rampup * nimg)
    return 0.5 ** (train.batch_size * train.n_critic / half_life) if half_life else 0.0


def rate_factor(recipe: Recipe, steps: int, progress: float) -> float:
    """Return the learning rate as a share of the recipe's: linear warm-up in steps, then decay from `decay_start`."""
    optim = recipe.optim
    factor = min(1.0, (steps + 1) / optim.warmup_steps) if optim.warmup_steps else 1.0
    if optim.decay == "none" or progress <= optim.decay_start:
        return factor
    left = (1.0 - progress) / (1.0 - optim.decay_start)
    shape = left if optim.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)
    return factor * (optim.decay_to + (1.0 - optim.decay_to) * shape)


def lazy_share(interval: int) -> float:
    """Return i / (i + 1) for a regularizer that is computed every i > 1 steps, 1 for one of every step."""
    return interval / (interval + 1) if interval > 1 else 1.0
