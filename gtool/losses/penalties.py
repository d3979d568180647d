"""Terms beside the adversarial loss: penalties on the discriminator's input gradient.

gradient_penalty   WGAN-GP (Gulrajani et al. 2017).
zero_centred       R1 and R2 (Mescheder et al. 2018): mean squared gradient norm on reals, on fakes.
path_lengths       StyleGAN2 (Karras et al. 2020, section 3.2): how far an image moves with its latents.

No weight is applied here. `discriminate` maps images (N, 3, R, R) to logits (N,) and contains the
augmentation, so that gradients are those with respect to images before it; logits[i] should depend on images[i]
alone, which is what makes the gradient of the sum the per-image gradient (where a discriminator compares images,
the small share of the others in it is part of the penalty, as in StyleGAN2). Everything is fp32 on this side of
`discriminate`.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Discriminate = Callable[[Tensor], Tensor]


def gradient_penalty(discriminate: Discriminate, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """Return E[(|grad D(x)| - 1)^2] at x = alpha real + (1 - alpha) fake, images (N, 3, R, R) without their graphs.

    alpha: (N, 1, 1, 1), uniform in [0, 1].
    """
    alpha = alpha.float()
    mixed = (alpha * real.float() + (1 - alpha) * fake.float()).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminate(mixed).float().sum(), mixed, create_graph=True)
    norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)  # (N,)
    return (norm - 1).square().mean()


def zero_centred(logits: Sequence[Tensor], images: Sequence[Tensor]) -> list[Tensor]:
    """Return E[|grad D(x)|^2] for every chunk of images, by double backward through the graph of the logits.

    Args:
        logits: (n,) each, in any division of what one call has computed from all the images.
        images: (n, 3, R, R) each, leaves that require a gradient.
    """
    total = torch.cat(list(logits)).float().sum()
    gradients = torch.autograd.grad(total, list(images), create_graph=True)
    return [gradient.float().square().flatten(1).sum(dim=1).mean() for gradient in gradients]


def path_lengths(images: Tensor, ws: Tensor, direction: Tensor) -> Tensor:
    """Return (N,) lengths of the gradient of `images . direction / sqrt(H W)` with respect to latents of layers.

    Squares are summed over components and widths and averaged over layers. (The release of GANsformer sums another
    axis and fails.) Differentiable; where a gradient vanishes so does that of its length.

    Args:
        images: (N, 3, H, W) made of ws, with their graph.
        ws: (N, L, ...), latents of L layers.
        direction: (N, 3, H, W) of N(0, 1).
    """
    moved = (images.float() * direction).sum() / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad(moved, ws, create_graph=True)
    length: Tensor = torch.linalg.vector_norm(gradient.float().flatten(1), dim=1)  # (N,)
    return length / math.sqrt(ws.shape[1])
