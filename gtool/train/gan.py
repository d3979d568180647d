"""Adversarial training of a generator and a discriminator: init_state, step.

One `step` is n_critic discriminator updates and one generator update. The order inside it is what the released
TransGAN code gets wrong and this module gets right: all micro-batches of the discriminator, its update, all
micro-batches of the generator, its update; the discriminator is frozen while the generator learns, so that no
gradient of the generator's loss is left in it.

`adversarial_state` holds what changes, `draws` the random numbers, `regularization` the terms beside the adversarial
loss, `adaptive` the strength of augmentation. One engine trains every family: networks of another contract are told
apart by what they have, as `num_ws` latents for layers.

Axis letters: N images of the global batch, n of one share; R resolution.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gtool.losses import adversarial as losses
from gtool.nn.ranges import to_pm1
from gtool.train import regularization
from gtool.train.augment import ada_controller as adaptive
from gtool.train.augment.augment import augment
from gtool.train.gan_state import Batches, State, check_networks, init_state, learning_rates
from gtool.train.optim import average, clip_and_step, set_rate
from gtool.train.random_draws import Latents, View, generate, judge, look, parts_of, take
from gtool.train.regularization import Share
from gtool.train.schedules import ema_beta, gammas, rate_factor

__all__ = ["Batches", "State", "check_networks", "init_state", "step"]


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
    if state.recipe.augment.target is not None:
        stats["augment_p"] = torch.tensor(state.augment_p)
        adaptive.adjust(state)
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
    latents = Latents.draw(state, batch, f"discriminator-{critic}")
    seen = ("real", "fake", "mix") if recipe.loss.gradient_penalty else ("real", "fake")
    views = [View.draw(state, batch, what, critic) for what in seen]
    parts = parts_of(state, batch)
    batch_mean = regularization.mean_real_logit(state, real, views[0], parts)
    state.bare_discriminator.requires_grad_(True)
    optimizer.zero_grad(set_to_none=True)
    shared = None
    sums: dict[str, Tensor] = {}
    for position, part in enumerate(parts):
        share = Share(state, part, critic, [view.of(part, real.device) for view in views])
        fake = _fakes(state, latents, part)
        with _no_sync(state, state.discriminator, last=position == len(parts) - 1):
            loss, stats, logits = _discriminator_loss(
                share, take(real, part, parts), fake.detach(), batch_mean
            )
            state.compute.accelerator.backward(loss / len(parts))
        if recipe.train.share_fakes:
            shared = Shared(fake, logits.detach())
        for name, value in stats.items():
            sums[name] = sums.get(name, 0.0) + value.detach() / len(parts)
    if recipe.augment.target is not None:
        adaptive.watch(state, sums["real_sign"])
    sums["discriminator_grad_norm"] = _clip_and_step(state, state.discriminator, optimizer)
    return shared, sums


def _discriminator_loss(
    share: Share, real: Tensor, fake: Tensor, batch_mean: Tensor | None
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Loss of one share, its statistics, and the logits of the reals."""
    state, recipe, views = share.state, share.state.recipe, share.views[:2]
    is_due = state.steps % recipe.loss.penalty_interval == 0
    weights = gammas(recipe, state.progress) if is_due else (0.0, 0.0)
    zero_centred = any(weights)
    differenced = zero_centred and recipe.loss.penalty_method == "finite-difference"
    exact = zero_centred and not differenced
    inputs = [
        images.detach().requires_grad_(exact and weight > 0)
        for images, weight in zip((real, fake), weights, strict=True)
    ]
    images = [augment(chunk, view.draws) for chunk, view in zip(inputs, views, strict=True)]
    if differenced:
        shifted = regularization.shifted(share, images)
        images, views = images + list(shifted.values()), views + [views[place] for place in shifted]
    with state.compute.autocast(enabled=not (exact and regularization.in_full_precision(recipe))):
        if exact and not all(weights):
            # A second derivative is half the work of all: what needs none goes by itself.
            alone = zip(images, views, strict=True)
            logits = tuple(judge(state.discriminator, [chunk], [view])[0] for chunk, view in alone)
        else:
            logits = judge(state.discriminator, images, views)
    loss = losses.discriminator_loss(recipe.loss.kind, logits[0], logits[1])
    stats = {"discriminator_loss": loss, "real_logit": logits[0].mean(), "fake_logit": logits[1].mean()}
    if recipe.augment.target is not None:
        stats["real_sign"] = logits[0].sign().mean()
    if recipe.loss.drift:
        mean = logits[0].mean().detach() if batch_mean is None else batch_mean
        loss = loss + recipe.loss.drift * losses.drift(logits[0], mean)
    terms = []
    if zero_centred:
        slopes = (
            regularization.differences(recipe, logits)
            if differenced
            else regularization.exact_slopes(logits, inputs)
        )
        terms += [gamma / 2 * slope for gamma, slope in zip(weights, slopes, strict=True) if gamma]
    if is_due and recipe.loss.gradient_penalty:
        terms.append(regularization.gradient_penalty(share, real, fake))
    if terms:
        stats["penalty"] = torch.stack(terms).sum()
        loss = loss + recipe.loss.penalty_interval * stats["penalty"]
    return loss, stats, logits[0]


def _generator_step(state: State, shared: Shared | None) -> dict[str, Tensor]:
    recipe, optimizer = state.recipe, state.generator_optimizer
    batch = recipe.train.generator_batch_size or recipe.train.batch_size
    network = state.bare_discriminator
    network.requires_grad_(False)
    optimizer.zero_grad(set_to_none=True)
    sums = regularization.add_path_length(state, batch)
    latents = Latents.draw(state, batch, "generator")
    view = View.draw(state, batch, "generated")
    real = _real_for_generator(state, batch) if shared is None else None
    parts = parts_of(state, batch)
    for position, part in enumerate(parts):
        seen = view.of(part, state.compute.device)
        with _no_sync(state, state.generator, last=position == len(parts) - 1):
            fake = shared.fake if shared else _fakes(state, latents, part, with_graph=True)
            real_logits = shared.real_logits if shared else None
            if real is not None and losses.needs_real_in_generator(recipe.loss.kind):
                with torch.no_grad():
                    real_logits = look(state, network, take(real, part, parts), seen)
            logits = look(state, network, fake, seen)
            loss = losses.generator_loss(recipe.loss.kind, logits, real_logits)
            stats = {"generator_loss": loss, "fake_std": fake.detach().std(dim=0).mean()}
            seen_real = None if real is None else take(real, part, parts)
            loss = loss + regularization.auxiliary(state, latents, part, fake, seen_real)
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


def _fakes(state: State, latents: Latents, part: slice, with_graph: bool = False) -> Tensor:
    """Generate the images of a part; the graph is kept only for those who will use it."""
    keep = with_graph or state.recipe.train.share_fakes
    with nullcontext() if keep else torch.no_grad(), state.compute.autocast():
        images: Tensor = generate(state, latents, part)
    return images.float()


def _no_sync(state: State, network: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    return nullcontext() if last else state.compute.accelerator.no_sync(network)


def _clip_and_step(state: State, network: nn.Module, optimizer: Any) -> Tensor:
    return clip_and_step(state.compute, network, optimizer, state.recipe.optim.clip_norm)


def _set_learning_rates(state: State) -> None:
    factor = rate_factor(state.recipe, state.steps, state.progress)
    optimizers = (state.generator_optimizer, state.discriminator_optimizer)
    for optimizer, rate in zip(optimizers, learning_rates(state.recipe), strict=True):
        set_rate(optimizer, rate * factor)


def _set_locality(state: State) -> None:
    """Widen the attention neighbourhood of version 1 on its schedule of (until kimg, width); then none."""
    schedule = state.recipe.train.locality
    if schedule:
        width = next((width for until, width in schedule if state.nimg < 1000 * until), None)
        state.bare_generator.set_locality(width)


@torch.no_grad()
def _update_ema(state: State) -> None:
    trained = state.bare_generator
    average(state.ema, trained, ema_beta(state.recipe, state.nimg))
    # Buffers are copied: what counts or remembers is no weight. One that the average lacks belongs to training alone.
    buffers = dict(trained.named_buffers())
    for name, averaged in state.ema.named_buffers():
        averaged.copy_(buffers[name])
