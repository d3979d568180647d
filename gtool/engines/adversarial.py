"""Adversarial training of a generator and a discriminator: init_state, step.

One `step` is n_critic discriminator updates and one generator update. The order inside it is what the released
TransGAN code gets wrong and this module gets right: all micro-batches of the discriminator, its update, all
micro-batches of the generator, its update; the discriminator is frozen while the generator learns, so that no
gradient of the generator's loss is left in it.

Every random number is a function of (seed, purpose, step) and is drawn for the global batch, of which each process
and micro-batch takes its share: results do not depend on how many there are.

Axis letters: N images of the global batch, n of one share; R resolution.
"""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gtool import models
from gtool.data.augment import Draws, augment, draw
from gtool.data.policies import parse_policy
from gtool.data.transforms import to_pm1
from gtool.device import Compute, make_generator
from gtool.engines.schedules import ema_beta, gammas, rate_factor
from gtool.losses import adversarial as losses
from gtool.losses import penalties
from gtool.recipe import Recipe


class Batches(Protocol):
    """Endless shares of global batches, in an order that is a function of the seed."""

    position: int

    def next(self, batch_size: int) -> Tensor:
        """Return this process's uint8 (n, 3, R, R) share of the next `batch_size` images."""
        ...


@dataclass
class State:
    """Everything that training changes; `generator` and `discriminator` are wrapped when there are processes."""

    recipe: Recipe
    compute: Compute
    batches: Batches
    generator: nn.Module
    discriminator: nn.Module
    ema: nn.Module
    generator_optimizer: Any
    discriminator_optimizer: Any
    nimg: int = 0
    steps: int = 0
    seconds: float = 0.0
    progress: float = 0.0
    policy: tuple[str, ...] = field(default=())

    @property
    def position(self) -> int:
        """Images drawn from the data so far."""
        return self.batches.position

    @position.setter
    def position(self, position: int) -> None:
        self.batches.position = position

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The bare networks by the names they are saved under."""
        unwrap = self.compute.accelerator.unwrap_model
        return {
            "generator": unwrap(self.generator),
            "discriminator": unwrap(self.discriminator),
            "ema": self.ema,
        }

    @property
    def optimizers(self) -> dict[str, tuple[nn.Module, Any]]:
        """The optimizers with their networks, by the names they are saved under."""
        networks = self.networks
        return {
            "generator_optimizer": (networks["generator"], self.generator_optimizer),
            "discriminator_optimizer": (networks["discriminator"], self.discriminator_optimizer),
        }


def init_state(recipe: Recipe, config: Any, batches: Batches, compute: Compute) -> State:
    """Build networks (a function of the seed alone), averages and optimizers at step 0."""
    # Default initialisers draw from torch's global stream; it is put back, so that building has no side effect.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(make_generator(recipe.train.seed, "init").initial_seed())
        generator, discriminator = models.networks(recipe.model_name).build(config)
    generator, discriminator = generator.to(compute.device), discriminator.to(compute.device)
    ema = copy.deepcopy(generator).eval().requires_grad_(False)
    if recipe.train.compile:
        generator.compile()
        discriminator.compile()
    optim = recipe.optim
    rates = (optim.learning_rate, optim.discriminator_learning_rate or optim.learning_rate)
    optimizers = [
        _optimizer(net, recipe, rate) for net, rate in zip((generator, discriminator), rates, strict=True)
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
    )


def _optimizer(network: nn.Module, recipe: Recipe, rate: float) -> torch.optim.Optimizer:
    optim = recipe.optim
    kind = torch.optim.Adam if optim.kind == "adam" else torch.optim.AdamW
    return kind(
        network.parameters(),
        lr=rate,
        betas=optim.betas,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        fused=True,
    )


# One step.


def step(state: State) -> dict[str, Tensor]:
    """Update the discriminator n_critic times and the generator once; returns scalar statistics on the device."""
    train = state.recipe.train
    _set_learning_rates(state)
    _set_locality(state)
    stats: dict[str, Tensor] = {}
    shared = None
    for critic in range(train.n_critic):
        shared, seen = _discriminator_step(state, critic)
        stats |= seen
        state.nimg += train.batch_size
    stats |= _generator_step(state, shared)
    _update_ema(state)
    state.steps += 1
    return stats


@dataclass(frozen=True)
class Shared:
    """What the generator step takes over from the discriminator step when `train.share_fakes` is set."""

    fake: Tensor  # (n, 3, R, R) with its graph
    real_logits: Tensor  # (n,), detached


def _discriminator_step(state: State, critic: int) -> tuple[Shared | None, dict[str, Tensor]]:
    recipe, optimizer = state.recipe, state.discriminator_optimizer
    batch = recipe.train.batch_size
    real = to_pm1(state.batches.next(batch).to(state.compute.device, non_blocking=True))
    latents = _Latents(state, batch, f"discriminator-{critic}")
    views = [_View.draw(state, batch, what, critic) for what in ("real", "fake", "mix")]
    parts = _parts(state, batch)
    batch_mean = _mean_real_logit(state, real, views[0], parts)
    network = state.compute.accelerator.unwrap_model(state.discriminator)
    network.requires_grad_(True)
    optimizer.zero_grad(set_to_none=True)
    shared = None
    sums: dict[str, Tensor] = {}
    for position, part in enumerate(parts):
        share = _Share(state, part, critic, [view.of(part, real.device) for view in views])
        fake = _fakes(state, latents, part)
        loss, stats, logits = _discriminator_loss(
            state, share, _of(real, part, parts), fake.detach(), batch_mean
        )
        with _no_sync(state, state.discriminator, last=position == len(parts) - 1):
            state.compute.accelerator.backward(loss / len(parts))
        if recipe.train.share_fakes:
            shared = Shared(fake, logits.detach())
        for name, value in stats.items():
            sums[name] = sums.get(name, 0.0) + value.detach() / len(parts)
    sums["discriminator_grad_norm"] = _clip_and_step(state, state.discriminator, optimizer)
    return shared, sums


@dataclass(frozen=True)
class _Share:
    """One micro-batch of one process: its place in the global batch and how its images are seen."""

    state: State
    part: slice
    critic: int
    views: list[_View]  # of reals, fakes, and what a penalty looks at


def _discriminator_loss(
    state: State, share: _Share, real: Tensor, fake: Tensor, batch_mean: Tensor | None
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Loss of one share, its statistics, and the logits of the reals."""
    recipe, views = state.recipe, share.views[:2]
    is_due = state.steps % recipe.loss.penalty_interval == 0
    zero_centred = is_due and bool(recipe.loss.r1_gamma or recipe.loss.r2_gamma)
    differenced = zero_centred and recipe.loss.penalty_method == "finite-difference"
    exact = zero_centred and not differenced
    inputs = [images.detach().requires_grad_(exact) for images in (real, fake)]
    images = [augment(chunk, view.draws) for chunk, view in zip(inputs, views, strict=True)]
    if differenced:
        shifted = _shifted(state, share, images)
        images, views = images + list(shifted.values()), views + [views[place] for place in shifted]
    with state.compute.autocast(enabled=not (exact and _in_full_precision(recipe))):
        logits = _judge(state.discriminator, images, views)
    loss = losses.discriminator_loss(recipe.loss.kind, logits[0], logits[1])
    stats = {"discriminator_loss": loss, "real_logit": logits[0].mean(), "fake_logit": logits[1].mean()}
    if recipe.loss.drift:
        mean = logits[0].mean().detach() if batch_mean is None else batch_mean
        loss = loss + recipe.loss.drift * losses.drift(logits[0], mean)
    terms = []
    if zero_centred:
        slopes = _differences(recipe, logits) if differenced else penalties.zero_centred(logits, inputs)
        weights = gammas(recipe, state.progress)
        terms += [gamma / 2 * slope for gamma, slope in zip(weights, slopes, strict=True) if gamma]
    if is_due and recipe.loss.gradient_penalty:
        terms.append(_gradient_penalty(state, share, real, fake))
    if terms:
        stats["penalty"] = torch.stack(terms).sum()
        loss = loss + recipe.loss.penalty_interval * stats["penalty"]
    return loss, stats, logits[0]


def _in_full_precision(recipe: Recipe) -> bool:
    return recipe.train.penalty_precision == "fp32"


def _shifted(state: State, share: _Share, images: list[Tensor]) -> dict[int, Tensor]:
    """Augmented reals (0, for R1) and fakes (1, for R2) moved a small step in a random direction."""
    loss = state.recipe.loss
    shifted = {}
    for place, (gamma, what) in enumerate(((loss.r1_gamma, "r1"), (loss.r2_gamma, "r2"))):
        if gamma:
            image = images[place]
            batch = state.recipe.train.batch_size
            random = _random(state, f"direction-{what}", share.critic)
            direction = torch.randn(batch, *image.shape[1:], generator=random, device=random.device)
            shifted[place] = image + loss.difference_step * direction[share.part].to(image)
    return shifted


def _differences(recipe: Recipe, logits: tuple[Tensor, ...]) -> list[Tensor]:
    """E[|grad D|^2] on reals and on fakes, by finite differences along random directions; 0 where it is unused."""
    remaining, step = list(logits[2:]), recipe.loss.difference_step
    return [
        penalties.finite_difference(remaining.pop(0), base, step) if gamma else base.new_zeros(())
        for base, gamma in zip(logits[:2], (recipe.loss.r1_gamma, recipe.loss.r2_gamma), strict=True)
    ]


def _gradient_penalty(state: State, share: _Share, real: Tensor, fake: Tensor) -> Tensor:
    """WGAN-GP with its weight, with respect to the images before augmentation."""
    loss, view = state.recipe.loss, share.views[2]

    def discriminate(images: Tensor) -> Tensor:
        with state.compute.autocast(enabled=not _in_full_precision(state.recipe)):
            return _judge(state.discriminator, [augment(images, view.draws)], [view])[0]

    random = _random(state, "interpolate", share.critic)
    alpha = torch.rand(state.recipe.train.batch_size, 1, 1, 1, generator=random, device=random.device)
    target = loss.gradient_penalty_target
    penalty = penalties.gradient_penalty(discriminate, real, fake, alpha[share.part].to(real), target)
    return loss.gradient_penalty * penalty


def _mean_real_logit(state: State, real: Tensor, view: _View, parts: list[slice]) -> Tensor | None:
    """The mean of D(real) over the global batch, which the drift term of every share needs.

    None when it is unused, or when the one share is the whole batch and its own mean will do.
    """
    if not state.recipe.loss.drift or (len(parts) == 1 and state.compute.world_size == 1):
        return None
    network = state.compute.accelerator.unwrap_model(state.discriminator)
    means = []
    for part in parts:
        with torch.no_grad():
            means.append(_look(state, network, _of(real, part, parts), view.of(part, real.device)).mean())
    return state.compute.mean(torch.stack(means).mean())


def _generator_step(state: State, shared: Shared | None) -> dict[str, Tensor]:
    recipe, optimizer = state.recipe, state.generator_optimizer
    batch = recipe.train.generator_batch_size or recipe.train.batch_size
    network = state.compute.accelerator.unwrap_model(state.discriminator)
    network.requires_grad_(False)
    optimizer.zero_grad(set_to_none=True)
    latents = _Latents(state, batch, "generator")
    view = _View.draw(state, batch, "generated")
    real = _real_for_generator(state, batch) if shared is None else None
    parts = _parts(state, batch)
    sums: dict[str, Tensor] = {}
    for position, part in enumerate(parts):
        seen = view.of(part, state.compute.device)
        with _no_sync(state, state.generator, last=position == len(parts) - 1):
            fake = shared.fake if shared else _fakes(state, latents, part, with_graph=True)
            real_logits = shared.real_logits if shared else None
            if real is not None and losses.needs_real_in_generator(recipe.loss.kind):
                with torch.no_grad():
                    real_logits = _look(state, network, _of(real, part, parts), seen)
            logits = _look(state, network, fake, seen)
            loss = losses.generator_loss(recipe.loss.kind, logits, real_logits)
            stats = {"generator_loss": loss, "fake_std": fake.detach().std(dim=0).mean()}
            loss = loss + _auxiliary(
                state, latents, part, fake, real if real is None else _of(real, part, parts)
            )
            state.compute.accelerator.backward(loss / len(parts))
        for name, value in stats.items():
            sums[name] = sums.get(name, 0.0) + value.detach() / len(parts)
    sums["generator_grad_norm"] = _clip_and_step(state, state.generator, optimizer)
    return sums


def _real_for_generator(state: State, batch: int) -> Tensor | None:
    """Reals for losses and auxiliary tasks of the generator that look at them; they are not counted in nimg."""
    loss = state.recipe.loss
    if not (losses.needs_real_in_generator(loss.kind) or loss.super_resolution):
        return None
    return to_pm1(state.batches.next(batch).to(state.compute.device, non_blocking=True))


def _auxiliary(state: State, latents: _Latents, part: slice, fake: Tensor, real: Tensor | None) -> Tensor:
    """Mode seeking and the super-resolution co-training of version 1; zero when the recipe has neither."""
    loss, total = state.recipe.loss, fake.new_zeros(())
    if loss.mode_seeking:
        half = len(fake) // 2
        z = latents.z[part].to(fake)
        total = total + loss.mode_seeking * penalties.mode_seeking(
            fake[:half], fake[half : 2 * half], z[:half], z[half : 2 * half]
        )
    if loss.super_resolution and real is not None:
        network = state.compute.accelerator.unwrap_model(state.generator)
        active = state.nimg < 1000 * loss.super_resolution_kimg
        with state.compute.autocast():
            enlarged = network.super_resolve(real)
        # Weight 0 after its time, and not no term at all: processes expect a gradient for every parameter.
        weight = loss.super_resolution if active else 0.0
        total = total + weight * nn.functional.mse_loss(enlarged.float(), real)
    return total


# Shares, latents, views.


def _parts(state: State, batch: int) -> list[slice]:
    """Slices of the global batch that this process works through, one micro-batch each."""
    share = batch // state.compute.world_size
    micro = min(state.recipe.train.micro_batch or share, share)
    first = state.compute.rank * share
    return [slice(start, start + micro) for start in range(first, first + share, micro)]


def _of(local: Tensor, part: slice, parts: list[slice]) -> Tensor:
    """Take a part, given in places of the global batch, out of this process's share."""
    return local[part.start - parts[0].start : part.stop - parts[0].start]


@dataclass(frozen=True)
class _View:
    """How the discriminator sees N images: the draws of their augmentation and its own noise inputs."""

    draws: Draws
    noise: list[Tensor]  # (N, L, 1) for every length of the network

    @classmethod
    def draw(cls, state: State, batch: int, purpose: str, critic: int = 0) -> _View:
        """Draw for a global batch."""
        recipe, network = state.recipe, state.compute.accelerator.unwrap_model(state.discriminator)
        draws = draw(state.policy, batch, recipe.data.resolution, _random(state, purpose, critic))
        random = _random(state, f"noise-{purpose}", critic)
        return cls(
            draws, [torch.randn(batch, length, 1, generator=random) for length in network.noise_lengths]
        )

    def of(self, part: slice, device: torch.device) -> _View:
        """Return a share of it on the device."""
        draws = self.draws[part.start : part.stop].to(device)
        return _View(draws, [values[part].to(device) for values in self.noise])


def _judge(network: nn.Module, images: list[Tensor], views: list[_View]) -> tuple[Tensor, ...]:
    """Return the fp32 logits (n,) of every chunk of augmented images, from one call."""
    noise = [torch.cat(values) for values in zip(*(view.noise for view in views), strict=True)]
    logits: Tensor = network(torch.cat(images), noise or None).float()
    return torch.split(logits, [len(chunk) for chunk in images])


def _look(state: State, network: nn.Module, images: Tensor, view: _View) -> Tensor:
    """Return the fp32 logits (n,) of images that are augmented here."""
    with state.compute.autocast():
        return _judge(network, [augment(images, view.draws)], [view])[0]


def _random(state: State, purpose: str, critic: int = 0) -> torch.Generator:
    return make_generator(state.recipe.train.seed, purpose, state.steps, critic)


class _Latents:
    """Latents and noise inputs for a global batch, drawn once."""

    def __init__(self, state: State, batch: int, purpose: str) -> None:
        network = state.compute.accelerator.unwrap_model(state.generator)
        random = _random(state, f"z-{purpose}")
        self.z = torch.randn(batch, network.z_dim, generator=random)  # (N, z_dim)
        self.noise = [torch.randn(batch, length, 1, generator=random) for length in network.noise_lengths]


def _fakes(state: State, latents: _Latents, part: slice, with_graph: bool = False) -> Tensor:
    """Generate the images of a part; the graph is kept only for those who will use it."""
    device = state.compute.device
    keep = with_graph or state.recipe.train.share_fakes
    noise = [values[part].to(device) for values in latents.noise] or None
    with nullcontext() if keep else torch.no_grad(), state.compute.autocast():
        images = state.generator(latents.z[part].to(device), noise)
    return images.float()


def _no_sync(state: State, network: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    return nullcontext() if last else state.compute.accelerator.no_sync(network)


def _clip_and_step(state: State, network: nn.Module, optimizer: Any) -> Tensor:
    limit = state.recipe.optim.clip_norm or math.inf
    norm = state.compute.accelerator.clip_grad_norm_(network.parameters(), limit)
    optimizer.step()
    return norm.detach()


def _set_learning_rates(state: State) -> None:
    optim = state.recipe.optim
    factor = rate_factor(state.recipe, state.steps, state.progress)
    rates = (optim.learning_rate, optim.discriminator_learning_rate or optim.learning_rate)
    for optimizer, rate in zip(
        (state.generator_optimizer, state.discriminator_optimizer), rates, strict=True
    ):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor


def _set_locality(state: State) -> None:
    """Widen the attention neighbourhood of version 1 on its schedule of (until kimg, width); then none."""
    schedule = state.recipe.train.locality
    if schedule:
        width = next((width for until, width in schedule if state.nimg < 1000 * until), None)
        state.compute.accelerator.unwrap_model(state.generator).set_locality(width)


@torch.no_grad()
def _update_ema(state: State) -> None:
    beta = ema_beta(state.recipe, state.nimg)
    trained = state.compute.accelerator.unwrap_model(state.generator)
    torch._foreach_lerp_(list(state.ema.parameters()), list(trained.parameters()), 1.0 - beta)
