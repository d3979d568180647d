"""Optimizers, the moving average of weights, and schedules: the same for every family.

progress: share of the run that is done, in [0, 1].
"""

import math
from typing import Any, Literal

import torch
from torch import nn

from gtool.config.schema import OptimRecipe, Recipe

Buffers = Literal["keep", "copy", "average"]


def make_optimizer(optim: OptimRecipe, parameters: Any, rate: float, lazy_share: float) -> Any:
    """Return the optimizer of a recipe for tensors, or for groups that may have settings of their own."""
    first, second = optim.betas
    kind = torch.optim.Adam if optim.kind == "adam" else torch.optim.AdamW
    return kind(
        parameters,
        lr=rate,
        betas=(first**lazy_share, second**lazy_share),
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        fused=True,
    )


def learning_rates(recipe: Recipe) -> tuple[float, float]:
    """Return those of the network that is saved and of its discriminator, before any schedule."""
    optim, shares = recipe.optim, lazy_shares(recipe)
    rates = (optim.learning_rate, optim.discriminator_learning_rate or optim.learning_rate)
    return rates[0] * shares[0], rates[1] * shares[1]


def lazy_shares(recipe: Recipe) -> tuple[float, float]:
    """Return i / (i + 1) for the intervals i > 1 of the regularizers of generator and discriminator, else 1.

    StyleGAN2 (Karras et al. 2020, appendix B) multiplies learning rates by it and raises betas to its power.
    """
    loss, optim = recipe.loss, recipe.optim
    if not optim.lazy_rescale:
        return 1.0, 1.0
    generator = optim.generator_reg_interval or (loss.path_length_interval if loss.path_length else 1)
    has_penalty = bool(loss.r1_gamma or loss.r2_gamma or loss.gradient_penalty)
    discriminator = loss.penalty_interval if has_penalty else 1
    first, second = (i / (i + 1) if i > 1 else 1.0 for i in (generator, discriminator))
    return first, second


def rate_factor(recipe: Recipe, steps: int, progress: float) -> float:
    """Return the learning rate as a share of the recipe's: linear warm-up in steps, then decay from `decay_start`."""
    optim = recipe.optim
    factor = min(1.0, (steps + 1) / optim.warmup_steps) if optim.warmup_steps else 1.0
    if optim.decay == "none" or progress <= optim.decay_start:
        return factor
    left = (1.0 - progress) / (1.0 - optim.decay_start)
    shape = left if optim.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)
    return factor * (optim.decay_to + (1.0 - optim.decay_to) * shape)


@torch.no_grad()
def ema_update(ema: nn.Module, network: nn.Module, beta: float, buffers: Buffers) -> None:
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


def averages(recipe: Recipe) -> bool:
    """Whether the average is another than the network in training."""
    train = recipe.train
    return bool(train.ema_kimg if train.ema_decay is None else train.ema_decay)


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
