"""Terms of a GAN's training beside the adversarial loss: penalties of the discriminator, regularizers of the generator.

Each sees one share of the global batch, and means over shares are means over the batch.

Axis letters: N images of the global batch, n of one share; R resolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gtool.losses import penalties
from gtool.train.augment.augment import augment
from gtool.train.gan_random import (
    Latents,
    View,
    augment_and_discriminate,
    discriminate,
    generate,
    micro_batches,
    random_of,
    take,
)
from gtool.train.gan_state import GANState


def penalties_autocast(state: GANState) -> bool:
    """Say whether penalties are computed in the run's precision; else in fp32."""
    return state.recipe.train.penalty_precision != "fp32"


def gammas(state: GANState) -> tuple[float, float]:
    """Return the weights of R1 and R2 in this step, 0 where they are not due.

    loss.gamma_decay is the factor that they have reached at the end of the run.
    """
    loss = state.recipe.loss
    if state.steps % loss.penalty_interval:
        return 0.0, 0.0
    factor = loss.gamma_decay**state.progress
    return loss.r1_gamma * factor, loss.r2_gamma * factor


def gradient_penalty(
    state: GANState, real: Tensor, fake: Tensor, view: View, part: slice, critic: int
) -> Tensor:
    """WGAN-GP with its weight, with respect to the images before augmentation."""
    loss = state.recipe.loss

    def discriminator(images: Tensor) -> Tensor:
        with state.compute.autocast(enabled=penalties_autocast(state)):
            return discriminate(state.discriminator, [augment(images, view.draws)], [view])[0]

    random = random_of(state, "interpolate", critic)
    alpha = torch.rand(state.recipe.train.batch_size, 1, 1, 1, generator=random, device=random.device)
    penalty = penalties.gradient_penalty(discriminator, real, fake, alpha[part].to(real))
    return loss.gradient_penalty * penalty


def mean_real_logit(state: GANState, real: Tensor, view: View, parts: list[slice]) -> Tensor | None:
    """Return the mean of D(real) over the global batch, which the drift term of every share needs.

    None when it is unused, or when the one share is the whole batch and its own mean will do.
    """
    if not state.recipe.loss.drift or (len(parts) == 1 and state.compute.world_size == 1):
        return None
    means = []
    for part in parts:
        with torch.no_grad():
            logits = augment_and_discriminate(state, take(real, part, parts), view.of(part, real.device))
            means.append(logits.mean())
    return state.compute.mean(torch.stack(means).mean())


def super_resolution(state: GANState, real: Tensor) -> Tensor:
    """Return the loss of the super-resolution co-training of TransGAN's version 1, with its weight."""
    loss = state.recipe.loss
    with state.compute.autocast():
        enlarged = state.bare("generator").super_resolve(real)
    # Weight 0 after its time instead of no term at all: processes expect a gradient for every parameter.
    weight = loss.super_resolution if state.nimg < 1000 * loss.super_resolution_kimg else 0.0
    return weight * nn.functional.mse_loss(enlarged.float(), real)


def add_path_length(state: GANState, batch: int) -> dict[str, Tensor]:
    """Add the gradients of the path length penalty to those of the generator, where it is due; returns statistics.

    StyleGAN2 (Karras et al. 2020, section 3.2), on latents of its own. There the running mean that lengths are
    compared with has moved by this batch already; here it moves afterwards, so that no share has to know the
    lengths of the others. With a decay of 0.01 that is a hundredth of a gradient.
    """
    loss = state.recipe.loss
    if not loss.path_length or state.steps % loss.path_length_interval:
        return {}
    batch = batch // loss.path_length_batch_shrink
    latents = Latents.draw(state, batch, "path-length")
    resolution = state.recipe.data.resolution
    random = random_of(state, "direction-path-length")
    direction = torch.randn(batch, 3, resolution, resolution, generator=random)
    parts = micro_batches(state, batch)
    mean, penalty = state.path_length.new_zeros(()), state.path_length.new_zeros(())
    for part in parts:
        # Gradients of processes meet in the backward pass of the adversarial loss, which is still to come.
        with state.compute.accelerator.no_sync(state.generator):
            with state.compute.autocast(enabled=penalties_autocast(state)):
                images, ws = generate(state, latents, part, with_ws=True)
            lengths = penalties.path_lengths(images, ws, direction[part].to(images.device))
            term = loss.path_length * (lengths - state.path_length).square().mean()
            state.compute.accelerator.backward(loss.path_length_interval * term / len(parts))
        mean += lengths.detach().mean() / len(parts)
        penalty += term.detach() / len(parts)
    mean = state.compute.mean(mean)
    state.path_length.lerp_(mean, loss.path_length_decay)
    return {"path_length": mean, "path_penalty": penalty}
