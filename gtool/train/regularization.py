"""Terms beside the adversarial loss: penalties of the discriminator, auxiliary losses of the generator.

Each sees one share of the global batch, and means over shares are means over the batch.

Axis letters: N images of the global batch, n of one share; R resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gtool.config.recipe import Recipe
from gtool.losses import penalties
from gtool.train.augment.augment import augment
from gtool.train.gan_state import State
from gtool.train.random_draws import Latents, View, generate, judge, look, parts_of, random_of, take


@dataclass(frozen=True)
class Share:
    """One micro-batch of one process: its place in the global batch and how its images are seen."""

    state: State
    part: slice
    critic: int
    views: list[View]  # of reals, fakes, and of what lies between them where a penalty looks at that


def in_full_precision(recipe: Recipe) -> bool:
    """Say whether penalties are computed in fp32 whatever the run's precision is."""
    return recipe.train.penalty_precision == "fp32"


# The discriminator.


def shifted(share: Share, images: list[Tensor]) -> dict[int, Tensor]:
    """Return augmented reals (0, for R1) and fakes (1, for R2) moved a small step in a random direction."""
    state, loss = share.state, share.state.recipe.loss
    moved = {}
    for place, (gamma, what) in enumerate(((loss.r1_gamma, "r1"), (loss.r2_gamma, "r2"))):
        if gamma:
            image = images[place]
            batch = state.recipe.train.batch_size
            random = random_of(state, f"direction-{what}", share.critic)
            direction = torch.randn(batch, *image.shape[1:], generator=random, device=random.device)
            moved[place] = image + loss.difference_step * direction[share.part].to(image)
    return moved


def differences(recipe: Recipe, logits: tuple[Tensor, ...]) -> list[Tensor]:
    """E[|grad D|^2] on reals and on fakes, by finite differences along random directions; 0 where it is unused."""
    remaining, step = list(logits[2:]), recipe.loss.difference_step
    return [
        penalties.finite_difference(remaining.pop(0), base, step) if gamma else base.new_zeros(())
        for base, gamma in zip(logits[:2], (recipe.loss.r1_gamma, recipe.loss.r2_gamma), strict=True)
    ]


def exact_slopes(logits: Sequence[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """E[|grad D|^2] on reals and on fakes, by double backward; 0 where the inputs require no gradient."""
    watched = [place for place, images in enumerate(inputs) if images.requires_grad]
    found = penalties.zero_centred([logits[i] for i in watched], [inputs[i] for i in watched])
    slopes = dict(zip(watched, found, strict=True))
    return [slopes.get(place, base.new_zeros(())) for place, base in enumerate(logits)]


def gradient_penalty(share: Share, real: Tensor, fake: Tensor) -> Tensor:
    """WGAN-GP with its weight, with respect to the images before augmentation."""
    state, view = share.state, share.views[2]
    loss = state.recipe.loss

    def discriminate(images: Tensor) -> Tensor:
        with state.compute.autocast(enabled=not in_full_precision(state.recipe)):
            return judge(state.discriminator, [augment(images, view.draws)], [view])[0]

    random = random_of(state, "interpolate", share.critic)
    alpha = torch.rand(state.recipe.train.batch_size, 1, 1, 1, generator=random, device=random.device)
    target = loss.gradient_penalty_target
    penalty = penalties.gradient_penalty(discriminate, real, fake, alpha[share.part].to(real), target)
    return loss.gradient_penalty * penalty


def mean_real_logit(state: State, real: Tensor, view: View, parts: list[slice]) -> Tensor | None:
    """The mean of D(real) over the global batch, which the drift term of every share needs.

    None when it is unused, or when the one share is the whole batch and its own mean will do.
    """
    if not state.recipe.loss.drift or (len(parts) == 1 and state.compute.world_size == 1):
        return None
    means = []
    for part in parts:
        with torch.no_grad():
            seen = look(state, state.bare_discriminator, take(real, part, parts), view.of(part, real.device))
            means.append(seen.mean())
    return state.compute.mean(torch.stack(means).mean())


# The generator.


def auxiliary(state: State, latents: Latents, part: slice, fake: Tensor, real: Tensor | None) -> Tensor:
    """Mode seeking and the super-resolution co-training of version 1; zero when the recipe has neither."""
    loss, total = state.recipe.loss, fake.new_zeros(())
    if loss.mode_seeking:
        half = len(fake) // 2
        z = latents.z[part].to(fake)
        total = total + loss.mode_seeking * penalties.mode_seeking(
            fake[:half], fake[half : 2 * half], z[:half], z[half : 2 * half]
        )
    if loss.super_resolution and real is not None:
        active = state.nimg < 1000 * loss.super_resolution_kimg
        with state.compute.autocast():
            enlarged = state.bare_generator.super_resolve(real)
        # Weight 0 after its time, and not no term at all: processes expect a gradient for every parameter.
        weight = loss.super_resolution if active else 0.0
        total = total + weight * nn.functional.mse_loss(enlarged.float(), real)
    return total


def add_path_length(state: State, batch: int) -> dict[str, Tensor]:
    """Add the gradients of the path length penalty to those of the generator, where it is due; returns statistics.

    StyleGAN2 (Karras et al. 2020, section 3.2), on latents of its own. There the running mean that lengths are
    compared with has moved by this batch already; here it moves afterwards, so that no share has to know the
    lengths of the others. With a decay of 0.01 that is a hundredth of a gradient.
    """
    loss = state.recipe.loss
    if not loss.path_length or state.steps % loss.path_length_interval:
        return {}
    batch = batch // loss.path_length_shrink
    latents = Latents.draw(state, batch, "path-length")
    resolution = state.recipe.data.resolution
    random = random_of(state, "direction-path-length")
    direction = torch.randn(batch, 3, resolution, resolution, generator=random)
    parts = parts_of(state, batch)
    mean, penalty = state.path_length.new_zeros(()), state.path_length.new_zeros(())
    for part in parts:
        # Gradients of processes meet in the backward pass of the adversarial loss, which is still to come.
        with state.compute.accelerator.no_sync(state.generator):
            with state.compute.autocast(enabled=not in_full_precision(state.recipe)):
                images, ws = generate(state, latents, part, with_ws=True)
            lengths = penalties.path_lengths(images, ws, direction[part].to(images.device))
            term = loss.path_length * (lengths - state.path_length).square().mean()
            state.compute.accelerator.backward(loss.path_length_interval * term / len(parts))
        mean += lengths.detach().mean() / len(parts)
        penalty += term.detach() / len(parts)
    mean = state.compute.mean(mean)
    state.path_length.lerp_(mean, loss.path_length_decay)
    return {"path_length": mean, "path_penalty": penalty}
