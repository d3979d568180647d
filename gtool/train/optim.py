"""What every engine does with an optimizer: make it, set its rate, clip and step; and the average that follows.

The arithmetic is the library's; what is here once is how a recipe says it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from gtool.config.recipe import OptimRecipe
from gtool.runtime.device import Compute


def make_optimizer(
    optim: OptimRecipe,
    parameters: Iterable[Any],
    rate: float | None = None,
    *,
    betas: tuple[float, float] | None = None,
) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe.

    Args:
        optim: the recipe's section.
        parameters: tensors, or groups that may have settings of their own.
        rate: learning rate in the place of the recipe's.
        betas: likewise.
    """
    kind = torch.optim.Adam if optim.kind == "adam" else torch.optim.AdamW
    return kind(
        parameters,
        lr=optim.learning_rate if rate is None else rate,
        betas=betas or optim.betas,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        fused=True,
    )


def set_rate(optimizer: Any, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_and_step(compute: Compute, network: nn.Module, optimizer: Any, limit: float | None) -> Tensor:
    """Step with gradients whose norm is at most `limit` (none: whatever it is); return the norm before that."""
    norm = compute.accelerator.clip_grad_norm_(network.parameters(), limit or math.inf)
    optimizer.step()
    return norm.detach()


@torch.no_grad()
def average(averaged: nn.Module, trained: nn.Module, beta: float) -> None:
    """Move the parameters of an average towards those in training; `beta` of what it was stays."""
    old: list[Tensor] = list(averaged.parameters())
    new: list[Tensor] = list(trained.parameters())
    torch._foreach_lerp_(old, new, 1.0 - beta)
