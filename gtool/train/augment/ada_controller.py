"""Augmentation as strong as overfitting asks for (Karras et al. 2020, StyleGAN2-ADA, section 3).

The more certain a discriminator is of the reals it trains on, the more of them it knows by heart. r = E[sign D(x)]
over augmented reals says how certain it is; the probability of augmentation rises while r is above the target and
falls while it is below.
"""

from __future__ import annotations

from torch import Tensor

from gtool.train.gan_state import State

ADJUST_STEPS = 4  # between two changes of the probability


def watch(state: State, real_sign: Tensor) -> None:
    """Take note of E[sign D(x)] over this process's augmented reals of one update."""
    state.real_sign += state.compute.mean(real_sign)


def adjust(state: State) -> None:
    """Move the probability by the images of the last ADJUST_STEPS steps over `augment.kimg`, towards the target."""
    recipe = state.recipe
    target = recipe.augment.target
    if target is None or state.steps % ADJUST_STEPS:
        return
    certainty = float(state.real_sign) / (ADJUST_STEPS * recipe.train.n_critic)
    images = ADJUST_STEPS * recipe.train.n_critic * recipe.train.batch_size
    direction = (certainty > target) - (certainty < target)
    state.augment_p = min(1.0, max(0.0, state.augment_p + direction * images / (1000 * recipe.augment.kimg)))
    state.real_sign.zero_()
