"""The training state of a GAN: how it is made, and what recipes are refused for lack of a network that can do it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gtool.config.schema import Recipe
from gtool.errors import RecipeError
from gtool.models import registry
from gtool.nn.outline import outline
from gtool.runtime.device import Compute
from gtool.train.augment.policies import parse_policy
from gtool.train.optim import lazy_share, make_optimizer
from gtool.train.trainer import TrainingState, build_networks, wrap


@dataclass(kw_only=True)
class GANState(TrainingState):
    """Generator and discriminator with their optimizers, and what regularizers and augmentation remember."""

    in_training = ("generator", "discriminator")

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: Any
    discriminator_optimizer: Any
    policy: tuple[str, ...]  # operations of the augmentation
    augment_p: float  # probability of augmentation
    real_sign: Tensor  # E[sign D(real)], summed since augment_p was last adjusted
    path_length: Tensor  # running mean

    @property
    def numbers(self) -> dict[str, float]:
        """What is saved beside networks and counters, the same in every process."""
        return {
            "augment_p": self.augment_p,
            "real_sign": float(self.real_sign),
            "path_length": float(self.path_length),
        }

    @numbers.setter
    def numbers(self, numbers: dict[str, float]) -> None:
        known = self.numbers | numbers
        # A fixed probability is the recipe's, also where it has been changed for a resumed run.
        if self.recipe.augment.target is not None:
            self.augment_p = known["augment_p"]
        self.real_sign = self.real_sign.new_tensor(known["real_sign"])
        self.path_length = self.path_length.new_tensor(known["path_length"])


def init_state(recipe: Recipe, config: Any, batches: Any, compute: Compute) -> GANState:
    """Build networks, average and optimizers at step 0.

    batches: see `gtool.data.loader.Batches`; each process draws its share of uint8 (N, 3, R, R).

    Raises:
        RecipeError: the recipe asks for what these networks cannot do.
    """
    generator, discriminator = build_networks(recipe, config)
    _require_fit(recipe, generator, discriminator, compute.world_size)
    generator, discriminator = generator.to(compute.device), discriminator.to(compute.device)
    ema = copy.deepcopy(generator).eval().requires_grad_(False)
    first, second = recipe.optim.betas
    optimizers = [
        make_optimizer(
            recipe.optim, network.parameters(), rate, betas=(float(first**share), float(second**share))
        )
        for network, rate, share in zip(
            (generator, discriminator), learning_rates(recipe), lazy_shares(recipe), strict=True
        )
    ]
    return GANState(
        recipe=recipe,
        compute=compute,
        batches=batches,
        ema=ema,
        **wrap(recipe, compute, generator=generator, discriminator=discriminator),
        **wrap(recipe, compute, generator_optimizer=optimizers[0], discriminator_optimizer=optimizers[1]),
        policy=parse_policy(recipe.augment.policy),
        augment_p=recipe.augment.p if recipe.augment.target is None else 0.0,
        real_sign=torch.zeros((), device=compute.device),
        path_length=torch.zeros((), device=compute.device),
    )


def learning_rates(recipe: Recipe) -> tuple[float, float]:
    """Return those of generator and discriminator before any schedule."""
    optim, shares = recipe.optim, lazy_shares(recipe)
    rates = (optim.learning_rate, optim.discriminator_learning_rate or optim.learning_rate)
    return rates[0] * shares[0], rates[1] * shares[1]


def lazy_shares(recipe: Recipe) -> tuple[float, float]:
    """Return i / (i + 1) for the intervals i of the regularizers of generator and discriminator, or 1 for none.

    StyleGAN2 (Karras et al. 2020, appendix B) multiplies learning rates by it and raises betas to its power.
    """
    loss = recipe.loss
    if not recipe.optim.lazy_rescale:
        return 1.0, 1.0
    interval = recipe.optim.generator_reg_interval or (loss.path_length_interval if loss.path_length else 1)
    has_penalty = bool(loss.r1_gamma or loss.r2_gamma or loss.gradient_penalty)
    return lazy_share(interval), lazy_share(loss.penalty_interval if has_penalty else 1)


def check_networks(recipe: Recipe, config: Any, processes: int) -> None:
    """Find out, before any data is read, whether the networks can do what the recipe asks for.

    Raises:
        RecipeError: they cannot.
    """
    with outline():
        generator, discriminator = registry.networks(recipe.model_name).build(config)
    _require_fit(recipe, generator, discriminator, processes)


def _require_fit(recipe: Recipe, generator: Any, discriminator: Any, world_size: int) -> None:
    num_layers = getattr(generator, "num_ws", 0)
    num_components = generator.z_shape[0] if num_layers else 0
    for key, what, there, needed in (
        ("path_length", "layer", num_layers, 1),
        ("style_mixing", "layer", num_layers, 2),
        ("component_mixing", "component", num_components, 2),
    ):
        if getattr(recipe.loss, key) and there < needed:
            raise RecipeError(
                f"loss.{key}: this {recipe.model_name} has {'one' if there else 'no'} latent for each {what}; "
                "leave it out"
            )
    train, group = recipe.train, int(discriminator.group_size)
    for key in ("batch_size", "generator_batch_size"):
        batch = getattr(train, key) or train.batch_size
        share = batch // world_size
        together = min(train.micro_batch or share, share)
        if together % group:
            raise RecipeError(
                f"train.{key} = {batch}: the discriminator compares images in groups of {group}, and the {together} "
                "that it sees at a time, after processes and train.micro_batch, are no multiple of that"
            )
