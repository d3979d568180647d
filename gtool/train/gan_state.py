"""What adversarial training changes: networks, average, optimizers, counters; and what it refuses to begin with."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gtool.config.recipe import Recipe
from gtool.errors import RecipeError
from gtool.models import registry
from gtool.runtime.device import Compute
from gtool.runtime.torch_random import make_generator
from gtool.train.augment.policies import parse_policy
from gtool.train.optim import make_optimizer
from gtool.train.resume import TrainingState
from gtool.train.schedules import lazy_share


class Batches(Protocol):
    """Endless shares of global batches, in an order that is a function of the seed."""

    position: int

    def next(self, batch_size: int) -> Tensor:
        """Return this process's uint8 (n, 3, R, R) share of the next `batch_size` images."""
        ...


@dataclass(kw_only=True)
class State(TrainingState):
    """Everything that training changes; `generator` and `discriminator` are wrapped when there are processes."""

    batches: Batches
    generator: nn.Module
    discriminator: nn.Module
    ema: nn.Module
    generator_optimizer: Any
    discriminator_optimizer: Any
    policy: tuple[str, ...] = field(default=())
    augment_p: float = 1.0  # probability of augmentation
    real_sign: Tensor = field(default_factory=lambda: torch.zeros(()))  # sum, since augment_p moved last
    path_length: Tensor = field(default_factory=lambda: torch.zeros(()))  # running mean

    @property
    def numbers(self) -> dict[str, float]:
        """What training remembers beside networks and counters, the same in every process."""
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

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The bare networks by the names they are saved under."""
        return {"generator": self.bare_generator, "discriminator": self.bare_discriminator, "ema": self.ema}

    @property
    def bare_generator(self) -> Any:
        """The generator without what wraps it when there are processes."""
        return self.bare(self.generator)

    @property
    def bare_discriminator(self) -> Any:
        """The discriminator without what wraps it when there are processes."""
        return self.bare(self.discriminator)

    @property
    def optimizers(self) -> dict[str, tuple[nn.Module, Any]]:
        """The optimizers with their networks, by the names they are saved under."""
        return {
            "generator_optimizer": (self.bare_generator, self.generator_optimizer),
            "discriminator_optimizer": (self.bare_discriminator, self.discriminator_optimizer),
        }


def init_state(recipe: Recipe, config: Any, batches: Batches, compute: Compute) -> State:
    """Build networks (a function of the seed alone), averages and optimizers at step 0.

    Raises:
        RecipeError: the recipe asks for what these networks cannot do.
    """
    # Default initialisers draw from torch's global stream; it is put back, so that building has no side effect.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(make_generator(recipe.train.seed, "init").initial_seed())
        generator, discriminator = registry.networks(recipe.model_name).build(config)
    _require_fit(recipe, generator, discriminator, compute.world_size)
    generator, discriminator = generator.to(compute.device), discriminator.to(compute.device)
    ema = copy.deepcopy(generator).eval().requires_grad_(False)
    if recipe.train.compile:
        generator.compile()
        discriminator.compile()
    optimizers = [
        _optimizer(network, recipe, rate, share)
        for network, rate, share in zip(
            (generator, discriminator), learning_rates(recipe), lazy_shares(recipe), strict=True
        )
    ]
    prepare = compute.accelerator.prepare
    return State(
        recipe=recipe,
        compute=compute,
        batches=batches,
        generator=prepare(generator),
        discriminator=prepare(discriminator),
        ema=ema,
        generator_optimizer=prepare(optimizers[0]),
        discriminator_optimizer=prepare(optimizers[1]),
        policy=parse_policy(recipe.augment.policy),
        augment_p=recipe.augment.p if recipe.augment.target is None else 0.0,
        real_sign=torch.zeros((), device=compute.device),
        path_length=torch.zeros((), device=compute.device),
    )


def _optimizer(network: nn.Module, recipe: Recipe, rate: float, share: float) -> torch.optim.Optimizer:
    first, second = recipe.optim.betas
    return make_optimizer(recipe.optim, network.parameters(), rate, betas=(first**share, second**share))


def learning_rates(recipe: Recipe) -> tuple[float, float]:
    """Return those of generator and discriminator before any schedule."""
    optim, shares = recipe.optim, lazy_shares(recipe)
    rates = (optim.learning_rate, optim.discriminator_learning_rate or optim.learning_rate)
    return rates[0] * shares[0], rates[1] * shares[1]


def lazy_shares(recipe: Recipe) -> tuple[float, float]:
    """Return i / (i + 1) for the intervals i of the regularisers of generator and discriminator, or 1 for none.

    StyleGAN2 (Karras et al. 2020, appendix B) multiplies learning rates with it and takes betas to its power.
    """
    loss = recipe.loss
    if not recipe.optim.lazy_rescale:
        return 1.0, 1.0
    interval = recipe.optim.generator_interval or (loss.path_length_interval if loss.path_length else 1)
    has_penalty = bool(loss.r1_gamma or loss.r2_gamma or loss.gradient_penalty)
    return lazy_share(interval), lazy_share(loss.penalty_interval if has_penalty else 1)


# What cannot be trained.


def check_networks(recipe: Recipe, config: Any, world_size: int) -> None:
    """Find out, before any data is read, whether the networks can do what the recipe asks for.

    Raises:
        RecipeError: they cannot.
    """
    with torch.device("meta"):
        generator, discriminator = registry.networks(recipe.model_name).build(config)
    _require_fit(recipe, generator, discriminator, world_size)


def _require_fit(recipe: Recipe, generator: Any, discriminator: Any, world_size: int) -> None:
    _require_layers(recipe, generator)
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


def _require_layers(recipe: Recipe, generator: Any) -> None:
    """Refuse what needs latents of layers or of components where a generator has none, or only one."""
    num_layers = getattr(generator, "num_ws", 0)
    num_components = generator.z_shape[0] if num_layers else 0
    for key, there, needed in (
        ("path_length", num_layers, 1),
        ("style_mixing", num_layers, 2),
        ("component_mixing", num_components, 2),
    ):
        if getattr(recipe.loss, key) and there < needed:
            what = "component" if key == "component_mixing" else "layer"
            raise RecipeError(
                f"loss.{key}: this {recipe.model_name} has {'one' if there else 'no'} latent for each {what}; "
                "leave it out"
            )
