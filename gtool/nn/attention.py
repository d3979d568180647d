"""Multi-head attention over the tokens of square tiles, with relative positions; cross-attention; the MLP.

Axis letters: N batch, L tokens of an image, T tokens of a tile, B = N L / T tiles of the batch, C channels,
K heads, d = C / K.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gtool.nn import second_derivatives
from gtool.nn.positions import RelativePositionBias
from gtool.nn.precision import without_autocast

# Tokens from which, on a CPU, gradients are had faster by computing the weights again than by keeping them
# (measured; below, the library's fused backward pass takes two to three times as long as plain operations).
MANY_TOKENS = 512
# Weights of one step and thread: two fp32 buffers of that size stay near a core (measured flat around it).
BLOCK = 1 << 19


def attend(qkv: Tensor, bias: Tensor | None, twice: bool = False) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias) v.

    Args:
        qkv: (B, T, 3, K, d).
        bias: (K, T, T), (1, T, T) for all heads alike, or None.
        twice: a second derivative will be taken; fused kernels have none on a CPU.

    Returns:
        (B, T, K d).
    """
    learning = torch.is_grad_enabled() and (qkv.requires_grad or (bias is not None and bias.requires_grad))
    if not learning:
        return fused_attention(qkv, bias)
    if twice:
        return plain_attention(qkv, bias)
    if qkv.device.type == "cpu" and qkv.shape[1] < MANY_TOKENS:
        return plain_attention(qkv, bias)
    if qkv.device.type == "cpu" and bias is not None and bias.requires_grad:
        return tiled_attention(qkv, bias)
    return fused_attention(qkv, bias)


def fused_attention(qkv: Tensor, bias: Tensor | None) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias) v for qkv (B, T, 3, K, d) and bias (K, T, T): (B, T, K d)."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, K, T, d) each
    mask = None if bias is None else bias.to(qkv.dtype).unsqueeze(0)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def tiled_attention(qkv: Tensor, bias: Tensor) -> Tensor:
    """As `fused_attention`, with a gradient for the bias; it can be differentiated once."""
    out: Tensor = _TiledAttention.apply(qkv, bias)
    return out


def plain_attention(qkv: Tensor, bias: Tensor | None) -> Tensor:
    """As `attend`, in operations that have every derivative.

    Logits and weights have the precision of qkv, sums that of fp32: with bf16 gradients are 0.7 % off where fp32 maps
    give 0.45 %, in half the time.
    """
    tiles, tokens, _, heads, width = qkv.shape
    q, k, v = (x.reshape(tiles * heads, tokens, width) for x in qkv.permute(2, 0, 3, 1, 4))
    with without_autocast(qkv):  # which would take the softmax to fp32
        if bias is None:
            logits = q * width**-0.5 @ k.transpose(1, 2)  # (B K, T, T)
        else:
            mask = bias.to(qkv.dtype).expand(tiles, heads, -1, -1).flatten(0, 1)
            logits = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=width**-0.5)
        out = logits.softmax(dim=-1) @ v  # (B K, T, d)
    return out.view(tiles, heads, tokens, width).transpose(1, 2).flatten(2)


def _precise(x: Tensor) -> Tensor:
    """Return half precision as fp32, the rest as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class SelfAttention(nn.Module):
    """Attention of the tokens of every tile among themselves; tokens come in the order of tiles.

    window: tokens a side of a tile, None for all tokens of the image and no relative positions.
    """

    mask: Tensor | None

    def __init__(self, channels: int, heads: int, window: int | None, relative: str) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        with_table = window is not None and relative != "none"
        self.relative = RelativePositionBias(window, heads, relative) if window and with_table else None
        self.register_buffer("mask", None, persistent=False)

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        """(N, L, C) -> (N, L, C); twice: a second derivative will be taken."""
        n, tokens, channels = x.shape
        tile = self.window**2 if self.window else tokens
        qkv = self.qkv(x).view(-1, tile, 3, self.heads, channels // self.heads)
        out: Tensor = self.out(attend(qkv, self._bias(), twice).view(n, tokens, channels))
        return out

    def read(self, x: Tensor) -> Tensor:
        """Attention of the first token alone to all: (N, L, C) -> (N, 1, C), as `forward` gives it."""
        n, tokens, channels = x.shape
        for_q, for_kv = self.qkv.weight[:channels], self.qkv.weight[channels:]
        q = F.linear(x[:, :1], for_q).view(n, 1, self.heads, -1)
        k, v = F.linear(x, for_kv).view(n, tokens, 2, self.heads, -1).unbind(2)  # (N, L, K, d)
        # One row of weights for every head: small enough for plain operations, whose logits stay fp32.
        logits = (_precise(q) * k).sum(-1) * q.shape[-1] ** -0.5  # (N, L, K)
        weights = logits.softmax(dim=1).to(v.dtype).unsqueeze(-1)
        out: Tensor = self.out((weights * v).sum(1, keepdim=True).flatten(2))
        return out

    def _bias(self) -> Tensor | None:
        bias = self.relative() if self.relative is not None else None
        if self.mask is None:
            return bias
        blocked = torch.zeros((), device=self.mask.device).masked_fill(~self.mask, float("-inf"))
        return blocked.expand(self.heads, -1, -1) if bias is None else bias + blocked


class CrossAttention(nn.Module):
    """Tokens of an image look at context tokens, residual, no norm (CelebA-HQ release: "self-modulation")."""

    def __init__(self, channels: int, context_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(context_channels, channels, bias=False)
        self.value = nn.Linear(context_channels, channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (N, L, C), context (N, M, C') -> (N, L, C)."""
        q, k, v = self._split(self.query(x)), self._split(self.key(context)), self._split(self.value(context))
        attended = F.scaled_dot_product_attention(q, k, v)  # (N, K, L, d)
        out: Tensor = x + self.out(attended.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        n, tokens, channels = x.shape
        return x.view(n, tokens, self.heads, channels // self.heads).transpose(1, 2)  # (N, K, L, d)


def activate(x: Tensor, kind: str, twice: bool = False) -> Tensor:
    """Apply "gelu" (erf), "gelu-sigmoid" (image-GPT) or "leaky-relu" (slope 0.2, released code)."""
    if twice and kind == "gelu":
        return second_derivatives.gelu(x)
    if kind == "leaky-relu":
        return F.leaky_relu(x, 0.2)
    if kind == "gelu-sigmoid":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x)


class MLP(nn.Module):
    """Linear, activation, Linear."""

    def __init__(self, channels: int, hidden: int, activation: str, bias: bool = True) -> None:
        super().__init__()
        self.activation = activation
        self.expand = nn.Linear(channels, hidden, bias)
        self.contract = nn.Linear(hidden, channels, bias)

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        """(..., C) -> (..., C); twice: a second derivative will be taken."""
        out: Tensor = self.contract(activate(self.expand(x), self.activation, twice))
        return out


class _TiledAttention(torch.autograd.Function):
    """Attention with a learned bias over many tokens, on a CPU, without ever storing T x T weights.

    The library's fused attention has no gradient for the bias there, and plain operations keep several T x T
    maps of every head and tile. Here the forward pass is the fused one, and the backward pass computes the
    weights again, a few rows of queries at a time, small enough for a core's cache. With P = softmax(q k^T /
    sqrt(d) + b), o = P v and g the gradient of o:

        dv = P^T g,  dP = g v^T,  dS = P * (dP - rowsum(P * dP))
        dq = dS k,  dk = dS^T q,  db = sum of dS over tiles

    Measured on one core with AMX, bf16, forward and backward: 4 tiles of 1024 tokens, 4 heads of 16, 75 ms, plain
    operations 119; 4 heads of 64, 127 and 121; 16 tiles of 256 tokens 43 and 20. The backward pass computes in fp32.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor) -> Tensor:
        # A bias that requires a gradient would take the library's slow path even here.
        out = fused_attention(qkv, bias.detach())
        ctx.save_for_backward(qkv, bias, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        qkv, bias, out = ctx.saved_tensors
        tiles, tokens, _, heads, _ = qkv.shape
        tiles_each = min(tiles, max(1, BLOCK * torch.get_num_threads() // tokens))
        rows = min(tokens, max(1, BLOCK * torch.get_num_threads() // (tiles_each * tokens)))
        buffers = torch.empty(2, tiles_each * rows * tokens)
        grad, out = (x.view(tiles, tokens, heads, -1) for x in (grad, out))
        grad_qkv, grad_bias = torch.empty_like(qkv), torch.zeros_like(bias, dtype=torch.float32)
        with without_autocast(qkv):
            for head in range(heads):
                for first in range(0, tiles, tiles_each):
                    here = slice(first, first + tiles_each)
                    parts = [x[here, ..., head, :].float() for x in (*qkv.unbind(2), out, grad)]  # (B, T, d)
                    gradients = _gradient_of_head(parts, bias[head].float(), grad_bias[head], buffers)
                    for place, gradient in zip(grad_qkv[here, :, :, head].unbind(2), gradients, strict=True):
                        place.copy_(gradient)
        return grad_qkv, grad_bias.to(bias.dtype)


def _gradient_of_head(
    parts: list[Tensor], bias: Tensor, grad_bias: Tensor, buffers: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients (B, T, d) of q, k, v of one head and add to that of the bias (T, T).

    Args:
        parts: q, k, v, output and its gradient, (B, T, d) fp32.
        bias: (T, T).
        grad_bias: (T, T), added to in place.
        buffers: (2, B rows T), overwritten.
    """
    q, k, v, out, grad = parts
    tiles, tokens, width = q.shape
    q = q * width**-0.5
    keys = k.transpose(1, 2).contiguous()
    # rowsum(P * dP) is grad . out; a column of it, and one of ones beside v, let the product subtract it.
    grad_and_sum = torch.cat([grad, -(grad * out).sum(-1, keepdim=True)], dim=-1)  # (B, T, d + 1)
    values_and_one = F.pad(v, (0, 1), value=1.0).transpose(1, 2).contiguous()  # (B, d + 1, T)
    queries, grads = q.transpose(1, 2), grad.transpose(1, 2)
    # Sums for keys and values are kept as (B, d, T): products with T columns are faster than with d.
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(keys), torch.zeros_like(keys)
    rows_each = buffers.shape[1] // (tiles * tokens)
    for first in range(0, tokens, rows_each):
        count = min(rows_each, tokens - first)
        rows = slice(first, first + count)
        weights, logits = buffers[:, : tiles * count * tokens].view(2, tiles, count, tokens)
        torch.bmm(q[:, rows], keys, out=weights).add_(bias[rows])
        torch.softmax(weights, dim=-1, out=weights)  # P
        torch.bmm(grad_and_sum[:, rows], values_and_one, out=logits).mul_(weights)  # dS
        grad_v.baddbmm_(grads[:, :, rows], weights)
        grad_k.baddbmm_(queries[:, :, rows], logits)
        grad_q[:, rows] = torch.bmm(logits, k)
        grad_bias[rows] += logits.sum(0)
    return grad_q * width**-0.5, grad_k.transpose(1, 2), grad_v.transpose(1, 2)
