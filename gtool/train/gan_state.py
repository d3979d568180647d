"""The training state of a GAN, and the random numbers of its step: latents, style mixing, noise, augmentation.

Every random number is a function of (seed, purpose, step) and is drawn for the global batch, of which each process
and micro-batch takes its share: results do not depend on how many there are. Dropout alone is drawn inside a network,
share by share: a run that has any can be resumed, but depends on how its batches are cut up.

Axis letters: N images of the global batch, n of one share; R resolution.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gtool.config.schema import Recipe
from gtool.data.loader import read_images
from gtool.errors import RecipeError
from gtool.io.weights import read_safetensors, restore
from gtool.losses.adversarial import ENERGY_GROUP
from gtool.models import registry
from gtool.models.outline import outline
from gtool.models.projected import ProjectedDiscriminator
from gtool.models.trained import Trained
from gtool.nn.ranges import to_pm1
from gtool.runtime.device import Compute, send
from gtool.runtime.random import derive_seed
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
    generator_from: int = 0  # images until which the discriminator learns alone
    labels: Tensor | None = (
        None  # int64, the class of each image of the data, where the networks are conditional
    )

    @property
    def generator_learns(self) -> bool:
        """Whether the generator is in training already."""
        return self.nimg >= self.generator_from

    @property
    def numbers(self) -> dict[str, float]:
        """What is saved beside networks and counters, the same in every process."""
        return {
            "augment_p": self.augment_p,
            "real_sign": float(self.real_sign),
            "path_length": float(self.path_length),
            "generator_from": float(self.generator_from),
        }

    @numbers.setter
    def numbers(self, numbers: dict[str, float]) -> None:
        known = self.numbers | numbers
        # A fixed probability is the recipe's, also where it has been changed for a resumed run.
        if self.recipe.augment.target is not None:
            self.augment_p = known["augment_p"]
        self.real_sign = self.real_sign.new_tensor(known["real_sign"])
        self.path_length = self.path_length.new_tensor(known["path_length"])
        self.generator_from = int(known["generator_from"])

    def start_from(self, weights: Trained) -> None:
        """Begin with a trained generator, and the discriminator beside it, where the run that it is of has one like it.

        Else the discriminator learns alone at first, so that a new one does not spoil the generator.
        """
        for network in (self.bare("generator"), self.ema):
            restore(network, weights.tensors, weights.path)
        state = weights.path.with_name(weights.path.stem.replace("weights-", "state-"))
        path = state / "discriminator.safetensors"
        saved = read_safetensors(path) if path.is_file() else {}
        if saved.keys() == self.bare("discriminator").state_dict().keys():
            restore(self.bare("discriminator"), saved, path)
        else:
            self.generator_from = round(1000 * self.recipe.train.discriminator_kimg)


def init_state(
    recipe: Recipe, config: Any, batches: Any, compute: Compute, labels: Tensor | None = None
) -> GANState:
    """Build networks, average and optimizers at step 0.

    batches: see `gtool.data.loader.Batches`; each process draws its share of uint8 (N, 3, R, R).
    labels: int64, the class of each of their images, where the networks are conditional.

    Raises:
        RecipeError: the recipe asks for what these networks cannot do.
    """
    generator, discriminator = build_networks(recipe, config)
    _require_fit(recipe, generator, discriminator, compute.world_size)
    if recipe.loss.projected:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(recipe.train.seed, "projected"))
            discriminator = ProjectedDiscriminator(discriminator, generator.num_classes)
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
        labels=labels,
    )


def check_networks(recipe: Recipe, config: Any, processes: int) -> None:
    """Find out, before any data is read, whether the networks can do what the recipe asks for.

    Raises:
        RecipeError: they cannot.
    """
    condition = recipe.data.condition
    if condition not in ("none", "class"):
        raise RecipeError(f"data.condition = '{condition}': {recipe.model_name} knows none but 'class'")
    with outline():
        generator, discriminator = registry.network_module(recipe.model_name).build(config)
    if generator.num_classes and condition == "none":
        raise RecipeError("model.classes: add data.condition = 'class'; classes are then those of the data")
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
    if recipe.loss.super_resolution and generator.low_input is None:
        raise RecipeError(
            "loss.super_resolution: the generator has no input for it; add model.generator.super_resolution = true"
        )
    train, group = recipe.train, _group(recipe, discriminator)
    for key in ("batch_size", "generator_batch_size"):
        batch = getattr(train, key) or train.batch_size
        share = batch // world_size
        together = min(train.micro_batch or share, share)
        if together % group:
            whole = group * world_size
            fits = f"; {math.ceil(batch / whole) * whole} would do" if together == share else ""
            raise RecipeError(
                f"train.{key} = {batch}: images are compared in groups of {group}, and the {together} "
                f"that are seen at a time, after processes and train.micro_batch, are no multiple of that{fits}"
            )


# Shares and random numbers.


def random_of(state: GANState, purpose: str, critic: int = 0) -> torch.Generator:
    """Return the random numbers of a purpose in this step; on a GPU they are drawn there."""
    device = state.compute.device if state.compute.device.type == "cuda" else "cpu"
    return make_generator(state.recipe.train.seed, purpose, state.steps, critic, device=device)


def micro_batches(state: GANState, batch: int) -> list[slice]:
    """Return the slices of the global batch that this process works through."""
    return state.micro_batches(batch, _group(state.recipe, state.bare("discriminator")))


def _group(recipe: Recipe, discriminator: Any) -> int:
    """Return how many images are compared with each other, which stay together in a share."""
    return math.lcm(int(discriminator.group_size), ENERGY_GROUP if recipe.loss.energy_distance else 1)


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


class Judged(NamedTuple):
    """What the discriminator says of n images.

    logits: (n, 1 + S) fp32: that of the discriminator, and those of its S heads with loss.projected, else none.
    features: (n, F), what its last layers judge by.
    """

    logits: Tensor
    features: Tensor

    def detach(self) -> Judged:
        return Judged(self.logits.detach(), self.features.detach())


def discriminate(
    network: nn.Module, images: list[Tensor], views: list[View], classes: Tensor | None = None
) -> list[Judged]:
    """Judge every chunk of augmented images in one call; all are of the same classes."""
    noise = [torch.cat(values) for values in zip(*(view.noise for view in views), strict=True)]
    own = () if classes is None else (classes.repeat(len(images)),)
    logits, features = network(torch.cat(images), noise or None, *own, with_features=True)
    sizes = [len(chunk) for chunk in images]
    logits = logits.float().view(len(logits), -1)
    return [Judged(*one) for one in zip(logits.split(sizes), features.split(sizes), strict=True)]


def augment_and_discriminate(
    state: GANState, images: Tensor, view: View, classes: Tensor | None = None
) -> Judged:
    """Judge images that are augmented here, by the network that is not wrapped."""
    with state.compute.autocast():
        return discriminate(state.bare("discriminator"), [augment(images, view.draws)], [view], classes)[0]


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


def generate(
    state: GANState, latents: Latents, part: slice, classes: Tensor | None = None, **options: Any
) -> Any:
    """Return what the generator makes of a slice of the latents; classes: int64 (n,) of the slice."""
    device = state.compute.device
    noise = [values[part].to(device) for values in latents.noise]
    mixing = {name: values[part].to(device) for name, values in latents.mixing.items()}
    own = () if classes is None else (classes,)
    return state.generator(latents.z[part].to(device), noise or None, *own, **mixing, **options)


def draw_classes(state: GANState, batch: int, purpose: str) -> Tensor | None:
    """Draw the classes of a global batch, as often as the data have them; None where there are none.

    Returns int64 (n,), this process's share.
    """
    if state.labels is None:
        return None
    random = make_generator(state.recipe.train.seed, f"classes-{purpose}", state.steps)
    drawn = torch.randint(len(state.labels), (batch,), generator=random)
    share = batch // state.compute.world_size
    return state.labels[drawn[state.compute.rank * share :][:share]].to(state.compute.device)


def next_real(state: GANState, batch: int) -> tuple[Tensor, Tensor | None]:
    """Return this process's share of the next real images (n, 3, R, R), in [-1, 1], and their classes (n,) or None."""
    device = state.compute.device
    if state.labels is None:
        return to_pm1(send(state.batches.next(batch), device)), None
    drawn = state.batches.draw(batch)
    real = to_pm1(send(read_images(state.batches.image_set, *drawn), device))
    return real, state.labels[torch.from_numpy(drawn[0])].to(device)


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
