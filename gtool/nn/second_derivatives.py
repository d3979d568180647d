"""Layer norm, GELU and convolutions for networks under a gradient penalty: second derivatives written by hand.

The library composes those of norms and activations of some thirty passes over memory; here they take a few, over pieces
that stay in a core's cache. Those of a convolution it computes with kernels as large as the map, channel by channel
where channels are groups; here they are convolutions like the first, and a discriminator's gradient penalty takes half
the time. First derivatives are the library's. Third ones do not exist.

Layer norm, with h = (x - mean) r, g the gradient of the output times the gain, m() the mean over channels:
    dx = r (g - m(g) - h m(g h))
and, for a cotangent v of dx and with c = m(g h), e = m(v h):
    dg* = r (v - m(v) - h e)
    dx* = -r^2 (v c + g e - m(v) c - m(g) e + h (m(v g) - m(v) m(g) - 3 e c))

Convolution, y = x * w, is linear in both: the gradient of x is so in g and w, that of w in g and x.

GELU, y = x F(x) with F the normal distribution function and f its density:  y' = F + x f,  y'' = f (2 - x^2).

Axis letters: C channels; everything before them is rows.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE = 1 << 17  # elements worked on at a time by each thread of a CPU
NORMAL = (2 * math.pi) ** -0.5  # the normal density at 0


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """As F.layer_norm over the last axis of (..., C)."""
    out: Tensor = _LayerNorm.apply(x, weight, bias, eps)
    return out


def gelu(x: Tensor) -> Tensor:
    """As F.gelu."""
    out: Tensor = _Gelu.apply(x)
    return out


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    transposed: bool = False,
) -> Tensor:
    """As F.conv2d of (N, I, H, W) with (O, I / groups, h, w), or F.conv_transpose2d with (I, O / groups, h, w).

    A backward pass that builds a graph (`create_graph`) gives no gradient to weight and bias: a penalty asks for that
    of the images alone, and a Function cannot know.
    """
    kind = x.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    how = ((stride, stride), (padding, padding), (1, 1), transposed, (0, 0), groups)
    out: Tensor = _Convolution.apply(x, weight, bias, how)
    return out


def _piece(x: Tensor) -> int:
    """Return how many elements of x are worked on at a time: what fits into the caches of a CPU, else all."""
    return PIECE * torch.get_num_threads() if x.device.type == "cpu" else max(1, x.numel())


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        out, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        gradients: tuple[Tensor | None, ...] = _LayerNormGradient.apply(grad, x, weight, bias, mean, rstd)
        return *gradients, None


class _LayerNormGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *stats: Tensor
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad, x, weight, *stats)
        wanted = [True, True, bias is not None]
        gradients = torch.ops.aten.native_layer_norm_backward(
            grad, x, x.shape[-1:], *stats, weight, bias, wanted
        )
        return gradients[0], gradients[1], gradients[2] if bias is not None else None

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None) -> Any:
        if of_weight is not None or of_bias is not None:
            raise NotImplementedError(
                "second derivatives through the gradient of a layer norm's gain or bias"
            )
        if v is None:
            return (None,) * 6
        grad, x, weight, mean, rstd = ctx.saved_tensors
        width = x.shape[-1]
        rows = [value.reshape(-1, width) for value in (v, grad, x)]
        stats = [value.reshape(-1, 1) for value in (mean, rstd)]
        to_grad, to_x = torch.empty_like(rows[1]), torch.empty_like(rows[2])
        to_weight = torch.zeros_like(weight)
        size = max(1, _piece(x) // width)
        for piece in zip(*(value.split(size) for value in (*rows, *stats, to_grad, to_x)), strict=True):
            to_weight += _layer_norm_second(weight, *piece)
        return to_grad.view_as(grad), to_x.view_as(x), to_weight, None, None, None


def _layer_norm_second(
    weight: Tensor,
    v: Tensor,
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    to_grad: Tensor,
    to_x: Tensor,
) -> Tensor:
    """Write the gradients of some rows (n, C) in place; returns that of the gain (C,)."""

    def m(a: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.vecdot(a, b).unsqueeze(-1) / a.shape[-1]

    h = (x - mean).mul_(rstd)
    g = grad * weight
    mean_v, mean_g = v.mean(-1, keepdim=True), g.mean(-1, keepdim=True)
    c, e = m(g, h), m(v, h)
    of_h = m(v, g) - mean_v * mean_g - 3 * e * c
    to_x.copy_((v * c).addcmul_(g, e).addcmul_(h, of_h).sub_(mean_v * c + mean_g * e).mul_(-rstd.square()))
    projected = (v - mean_v).addcmul_(h, e, value=-1).mul_(rstd)
    torch.mul(projected, weight, out=to_grad)
    return projected.mul_(grad).sum(0)


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.gelu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        out: Tensor = _GeluGradient.apply(grad, *ctx.saved_tensors)
        return out


class _GeluGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        return torch.ops.aten.gelu_backward(grad, x)  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor]:
        grad, x = ctx.saved_tensors
        to_x = torch.empty_like(x)
        size = _piece(x)
        pieces = (value.reshape(-1).split(size) for value in (v.contiguous(), grad.contiguous(), x, to_x))
        for of_v, of_grad, of_x, place in zip(*pieces, strict=True):
            square = of_x.to(torch.promote_types(x.dtype, torch.float32)).square()
            density = (square * -0.5).exp_()
            density.mul_(torch.rsub(square, 2 * NORMAL, alpha=NORMAL)).mul_(of_v)
            torch.mul(density, of_grad, out=place)
        return torch.ops.aten.gelu_backward(v, x), to_x


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sizes = None if bias is None else list(bias.shape)
        ctx.how = how
        return torch.ops.aten.convolution(x, weight, bias, *how)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = list(ctx.needs_input_grad[:3])
        if torch.is_grad_enabled():
            wanted[1:] = False, False
        gradients = _ConvolutionGradient.apply(grad, *ctx.saved_tensors, ctx.sizes, ctx.how, wanted)
        return *gradients, None


class _ConvolutionGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, sizes: Any, how: Any, wanted: list[bool]
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad, x, weight)
        ctx.how = how
        return torch.ops.aten.convolution_backward(grad, x, weight, sizes, *how, wanted)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None) -> Any:
        if of_weight is not None or of_bias is not None:
            raise NotImplementedError(
                "second derivatives through the gradient of a convolution's weight or bias"
            )
        if v is None:
            return (None,) * 6
        grad, x, weight = ctx.saved_tensors
        if x.is_contiguous(memory_format=torch.channels_last):
            v = v.contiguous(memory_format=torch.channels_last)
        to_grad = torch.ops.aten.convolution(v, weight, None, *ctx.how)
        to_weight = None
        if ctx.needs_input_grad[2]:
            mask = [False, True, False]
            to_weight = torch.ops.aten.convolution_backward(grad, v, weight, None, *ctx.how, mask)[1]
        return to_grad, None, to_weight, None, None, None
