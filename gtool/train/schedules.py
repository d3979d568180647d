"""What changes over a run as functions of its progress: learning rate, penalty weights, share of the average.

progress: share of the run that is done, in [0, 1].
"""

from __future__ import annotations

import math

from gtool.config.recipe import Recipe


def rate_factor(recipe: Recipe, steps: int, progress: float) -> float:
    """Learning rate as a share of the recipe's: linear warm-up in steps, then decay from `decay_start` on."""
    optim = recipe.optim
    factor = min(1.0, (steps + 1) / optim.warmup_steps) if optim.warmup_steps else 1.0
    if optim.decay == "none" or progress <= optim.decay_start:
        return factor
    left = (1.0 - progress) / (1.0 - optim.decay_start)
    shape = left if optim.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)
    return factor * (optim.decay_to + (1.0 - optim.decay_to) * shape)


def gammas(recipe: Recipe, progress: float) -> tuple[float, float]:
    """R1 and R2 weights; gamma_decay is the factor they have reached at the end of the run."""
    factor = recipe.loss.gamma_decay**progress
    return recipe.loss.r1_gamma * factor, recipe.loss.r2_gamma * factor


def lazy_share(interval: int) -> float:
    """Return i / (i + 1) for a regulariser that is due every i > 1 steps; 1 for one of every step."""
    return interval / (interval + 1) if interval > 1 else 1.0


def ema_beta(recipe: Recipe, nimg: int) -> float:
    """Share of the old average that survives a step: 0.5 after ema_kimg images, however many a step shows.

    The release counts the images of one discriminator update and averages once in n_critic of them, which makes its
    half-life n_critic times longer than it says.
    """
    train = recipe.train
    if train.ema_decay is not None:
        return train.ema_decay
    half_life = 1000 * train.ema_kimg
    if train.ema_rampup:
        half_life = min(half_life, train.ema_rampup * nimg)
    return 0.5 ** (train.batch_size * train.n_critic / half_life) if half_life else 0.0
