"""The training state of a GAN, and the random numbers of its step: latents, style mixing, noise, augmentation.

Every random number is a function of (seed, purpose, step) and is drawn for the global batch, of which each process
and micro-batch takes its share: results do not depend on how many there are. Dropout alone is drawn inside a network,
share by share: a run that has any can be resumed, but depends on how its batches are cut up.

Axis letters: N images of the global batch, n of one share; R resolution.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gtool.config.schema import Recipe
from gtool.errors import RecipeError
from gtool.models import registry
from gtool.models.outline import outline
from gtool.runtime.device import Compute
from gtool.runtime.torch_random import make_generator
from gtool.train.augment.augment import Draws, augment, draw
from gtool.train.augment.policies import parse_policy
from gtool.train.state import TrainingState, build_networks


@dataclass(kw_only=True)
class GANState(TrainingState):
    """Generator and discriminator with their optimizers, and what regularizers and augmentation remember."""

    in_training = ("generator", "discriminator")
    in_shares = True
    averaged_buffers = "copy"

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
    networks = generator.to(compute.device), discriminator.to(compute.device)
    return GANState.begin(
        recipe,
        compute,
        networks,
        ema=copy.deepcopy(generator).eval().requires_grad_(False),
        batches=batches,
        policy=parse_policy(recipe.augment.policy),
        augment_p=recipe.augment.p if recipe.augment.target is None else 0.0,
        real_sign=torch.zeros((), device=compute.device),
        path_length=torch.zeros((), device=compute.device),
    )


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


# Shares and random numbers.


def random_of(state: GANState, purpose: str, critic: int = 0) -> torch.Generator:
    """Return the random numbers of a purpose in this step; on a GPU they are drawn there."""
    device = state.compute.device if state.compute.device.type == "cuda" else "cpu"
    return make_generator(state.recipe.train.seed, purpose, state.steps, critic, device=device)


def micro_batches(state: GANState, batch: int) -> list[slice]:
    """Return the slices of the global batch that this process works through."""
    return state.micro_batches(batch, int(state.bare("discriminator").group_size))


@dataclass(frozen=True)
class View:
    """How the discriminator sees N images: random numbers of their augmentation, and its own noise inputs."""

    draws: Draws
    noise: list[Tensor]  # (N, *shape) for every noise shape of the network

    @classmethod
    def draw(cls, state: GANState, batch: int, purpose: str, critic: int = 0) -> View:
        """Draw for a global batch; the result is on the device."""
        # What augmentation decides for a whole batch is decided on the CPU.
        random = make_generator(state.recipe.train.seed, purpose, state.steps, critic)
        draws = draw(state.policy, batch, state.recipe.data.resolution, random, state.augment_p)
        random = random_of(state, f"noise-{purpose}", critic)
        noise = _noise(state.bare("discriminator"), batch, random)
        return cls(draws.to(state.compute.device), [values.to(state.compute.device) for values in noise])

    def of(self, part: slice) -> View:
        """Return a share of it."""
        return View(self.draws[part.start : part.stop], [values[part] for values in self.noise])


def discriminate(network: nn.Module, images: list[Tensor], views: list[View]) -> tuple[Tensor, ...]:
    """Return the fp32 logits (n,) of every chunk of augmented images, from one call."""
    noise = [torch.cat(values) for values in zip(*(view.noise for view in views), strict=True)]
    logits: Tensor = network(torch.cat(images), noise or None).float()
    return torch.split(logits, [len(chunk) for chunk in images])


def augment_and_discriminate(state: GANState, images: Tensor, view: View) -> Tensor:
    """Return the fp32 logits (n,) of images that are augmented here, by the network that is not wrapped."""
    with state.compute.autocast():
        return discriminate(state.bare("discriminator"), [augment(images, view.draws)], [view])[0]


@dataclass(frozen=True)
class Latents:
    """What N generated images are made of, drawn once."""

    z: Tensor  # (N, *z_shape)
    noise: list[Tensor]  # (N, *shape) for every noise shape of the network
    purpose: str
    # The generator's second, from_layer and from_component where latents are mixed: (N, *z_shape), (N,), (N,).
    mixing: Mapping[str, Tensor]

    @classmethod
    def draw(cls, state: GANState, batch: int, purpose: str) -> Latents:
        """Draw for a global batch."""
        network = state.bare("generator")
        random = random_of(state, f"z-{purpose}")
        z = torch.randn(batch, *network.z_shape, generator=random, device=random.device)
        return cls(z, _noise(network, batch, random), purpose, _mixing(state, batch, purpose))


def generate(state: GANState, latents: Latents, part: slice, **options: Any) -> Any:
    """Return what the generator makes of a slice of the latents."""
    device = state.compute.device
    noise = [values[part].to(device) for values in latents.noise]
    mixing = {name: values[part].to(device) for name, values in latents.mixing.items()}
    return state.generator(latents.z[part].to(device), noise or None, **mixing, **options)


def _noise(network: Any, batch: int, random: torch.Generator) -> list[Tensor]:
    shapes = [(batch, *shape) for shape in network.noise_shapes]
    return [torch.randn(shape, generator=random, device=random.device) for shape in shapes]


def _mixing(state: GANState, batch: int, purpose: str) -> dict[str, Tensor]:
    """Draw second latents, and from which layer and which component on each image has them.

    A cut-off is uniform among those that leave something of either latent, with the recipe's probability for each
    image; else it is the number of layers, or of components, which leaves nothing of the second.
    """
    loss, network = state.recipe.loss, state.bare("generator")
    random = random_of(state, f"mixing-{purpose}")
    drawn: dict[str, Tensor] = {}
    for name, probability in (("from_layer", loss.style_mixing), ("from_component", loss.component_mixing)):
        if probability:
            count = network.num_ws if name == "from_layer" else network.z_shape[0]
            cut_off = torch.randint(1, count, (batch,), generator=random, device=random.device)
            is_mixed = torch.rand(batch, generator=random, device=random.device) < probability
            drawn[name] = torch.where(is_mixed, cut_off, count)
    if drawn:
        drawn["second"] = torch.randn(batch, *network.z_shape, generator=random, device=random.device)
    return drawn
