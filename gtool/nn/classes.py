"""What makes a GAN conditional on a class: a vector added to the latent, and one that features are projected on.

The generator sees z + e(class), wherever it sees z. In as many dimensions as a latent has, random vectors of its own
length lie further apart than the latents around them spread, so that classes do not run into each other, and no layer
changes its shape. The discriminator judges by w . h + v(class) . h of its last features h (Miyato and Koyama 2018,
"cGANs with Projection Discriminator"); v begins at zero, where it is the discriminator without classes.

Axis letters: N images, C features.
"""

from __future__ import annotations

from collections.abc import Sized

import torch
from torch import Tensor, nn


def embedding(classes: Sized, width: int, *, zero: bool = False) -> nn.Embedding | None:
    """Return vectors of N(0, 1), or of zero, for so many classes; None for no class, which draws nothing."""
    if not classes:
        return None
    made = nn.Embedding(len(classes), width)
    if zero:
        nn.init.zeros_(made.weight)
    return made


def vectors_of(vectors: nn.Embedding | None, classes: Tensor | None) -> Tensor | None:
    """Return the vectors (N, C) of classes, int64 (N,), or None where there are none; ValueError for one without."""
    if (vectors is None) != (classes is None):
        raise ValueError("a conditional network needs the class of each image, and no other takes any")
    return None if vectors is None else vectors(classes)


def add_projection(
    logits: Tensor, features: Tensor, vectors: nn.Embedding | None, classes: Tensor | None, gain: float = 1.0
) -> Tensor:
    """Return logits (N, 1) with the product of features (N, C) and the vectors of their classes added."""
    directions = vectors_of(vectors, classes)
    if directions is None:
        return logits
    return logits + gain * (features * directions).sum(dim=-1, keepdim=True)


def example(vectors: nn.Embedding | None) -> tuple[None, Tensor] | tuple[()]:
    """Return what stands behind the first input of a network for one image: no noise, and its class; else nothing."""
    return () if vectors is None else (None, torch.zeros(1, dtype=torch.int64, device=vectors.weight.device))
