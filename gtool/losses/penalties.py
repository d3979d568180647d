"""Terms beside the adversarial loss: penalties on the discriminator's input gradient, and mode seeking.

gradient_penalty   WGAN-GP (Gulrajani et al. 2017), scaled by the target as the release of TransGAN scales it.
zero_centred       R1 and R2 (Mescheder et al. 2018): mean squared gradient norm on reals, on fakes. By
                   double backward, or by the finite difference of one more forward, which equals it in
                   expectation over directions as the step goes to 0, leaves fused kernels usable, costs less.
mode_seeking       MSGAN (Mao et al. 2019), as the release's `wgangp-mode` writes it.

No weight is applied here. `discriminate` maps images (N, 3, R, R) to logits (N,) and contains the
augmentation, so that gradients are those with respect to images before it; logits[i] must depend on images[i]
alone, which is what makes the gradient of the sum the per-image gradient. Everything is fp32 on this side of
`discriminate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Discriminate = Callable[[Tensor], Tensor]


def gradient_penalty(
    discriminate: Discriminate, real: Tensor, fake: Tensor, alpha: Tensor, target: float = 1.0
) -> Tensor:
    """Return E[(|grad D(x)| - target)^2] / target^2 at x = alpha real + (1 - alpha) fake.

    Args:
        discriminate: images to logits.
        real: (N, 3, R, R); as `fake`, taken without its graph.
        fake: (N, 3, R, R).
        alpha: (N, 1, 1, 1), uniform in [0, 1].
        target: gradient norm to hold, phi in the release.
    """
    alpha = alpha.float()
    gradient = _input_gradient(discriminate, alpha * real.float() + (1 - alpha) * fake.float())
    norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)  # (N,)
    return (norm - target).square().mean() / target**2


def zero_centred(
    discriminate: Discriminate,
    images: Tensor,
    *,
    method: Literal["exact", "finite-difference"] = "exact",
    direction: Tensor | None = None,
    step: float = 0.05,
) -> Tensor:
    """Return E[|grad D(x)|^2] at the images, or its one-direction estimate.

    Args:
        discriminate: images to logits.
        images: (N, 3, R, R), taken without their graph.
        method: double backward, or finite difference.
        direction: (N, 3, R, R) from N(0, I); for the finite difference only.
        step: how far to go along the direction.

    Raises:
        ValueError: unknown method, or a finite difference without a direction.
    """
    if method == "exact":
        return _input_gradient(discriminate, images).square().flatten(1).sum(dim=1).mean()
    if method != "finite-difference":
        raise ValueError(f"unknown penalty method `{method}`; known: exact, finite-difference")
    if direction is None:
        raise ValueError("a finite difference needs a direction")
    images = images.detach().float()
    return finite_difference(discriminate(images + step * direction.float()), discriminate(images), step)


def finite_difference(shifted: Tensor, base: Tensor, step: float) -> Tensor:
    """Return E[((D(x + step u) - D(x)) / step)^2] from logits (N,) that one batched call has computed."""
    return ((shifted.float() - base.float()) / step).square().mean()


def mode_seeking(images_a: Tensor, images_b: Tensor, z_a: Tensor, z_b: Tensor) -> Tensor:
    """Return 1 / (mean |images_a - images_b| / mean |z_a - z_b| + 1e-5).

    Small when other latents give other images. A ratio of means over the pairs given, as released: unlike the
    rest, no average over micro-batches.

    Args:
        images_a: (N, 3, R, R) from latents z_a.
        images_b: (N, 3, R, R) from latents z_b.
        z_a: (N, z_dim).
        z_b: (N, z_dim).

    Raises:
        ValueError: no pair at all.
    """
    if not len(images_a):
        raise ValueError("mode seeking compares two generated images: batches of two or more are needed")
    change = (images_a.float() - images_b.float()).abs().mean() / (z_a.float() - z_b.float()).abs().mean()
    return 1 / (change + 1e-5)


def _input_gradient(discriminate: Discriminate, images: Tensor) -> Tensor:
    """Gradient (N, 3, R, R) of each logit by its image, with the graph that a second backward needs."""
    images = images.detach().float().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminate(images).float().sum(), images, create_graph=True)
    return gradient
