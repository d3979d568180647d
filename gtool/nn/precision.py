"""Half and full precision inside of a network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Return a context in which autocast leaves the device of x alone; the meta device has none to begin with."""
    kind = x.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


def cast_blocks(network: nn.Module) -> None:
    """Let weights of a block go to the precision of autocast together, and their gradients back.

    Autocast does it one by one, a third of all kernels of a step (counted). Results are the same.
    """
    for module in network.modules():
        if getattr(module, "is_block", False):
            weights: dict[str, Tensor] = {
                f"block.{name}.{own}": weight
                for name, inner in module.named_modules()
                if isinstance(inner, nn.Linear | nn.Conv2d)
                for own, weight in inner.named_parameters(recurse=False)
            }
            if weights:
                module.forward = partial(_with_cast, _Bare(module), weights)  # type: ignore[method-assign]


class _Bare(nn.Module):
    """A block with the forward pass that it has now."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.forward = block, block.forward


def _with_cast(bare: nn.Module, weights: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    kind = next(iter(weights.values())).device.type
    if not torch.is_autocast_enabled(kind):
        return bare(*args, **kwargs)
    cast = _Together.apply(torch.get_autocast_dtype(kind), *weights.values())
    return torch.func.functional_call(bare, dict(zip(weights, cast, strict=True)), args, kwargs)


class _Together(torch.autograd.Function):
    """Tensors of one precision in another, by a kernel for many of them; can be differentiated any number of times."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.before = tensors[0].dtype
        cast = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
        torch._foreach_copy_(cast, list(tensors))
        return tuple(cast)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [grad for grad in grads if grad is not None]
        cast = iter(_Together.apply(ctx.before, *there)) if there else iter(())
        return None, *(None if grad is None else next(cast) for grad in grads)
