"""Multi-head attention over the tokens of square tiles, with relative positions; cross-attention; the MLP.

Fused attention has no second derivative on a CPU, so networks under a gradient penalty ask for the explicit
form.

Axis letters: N batch, L tokens of an image, T tokens of a tile, B = N L / T tiles of the batch, C channels,
K heads, d = C / K.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.layers.position import RelativePositionBias


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, fused: bool) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias) v: (B, K, T, d) -> (B, K, T, d); bias (K, T, T).

    Without `fused` the logits are kept in fp32 and every operation has a second derivative.
    """
    if fused and bias is not None and bias.requires_grad and torch.is_grad_enabled():
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias.to(q.dtype)
        return logits.softmax(dim=-1, dtype=q.dtype).to(v.dtype) @ v
    if fused:
        mask = None if bias is None else bias.to(q.dtype).unsqueeze(0)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    logits = (q @ k.transpose(-2, -1)).float() * q.shape[-1] ** -0.5  # (B, K, T, T)
    if bias is not None:
        logits = logits + bias
    return logits.softmax(dim=-1).to(v.dtype) @ v


class SelfAttention(nn.Module):
    """Attention of the tokens of every tile among themselves; tokens come in the order of tiles.

    window: tokens a side of a tile, None for all tokens of the image and no relative positions.
    """

    def __init__(self, channels: int, heads: int, window: int | None, relative: str, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.fused = fused
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.relative = (
            RelativePositionBias(window, heads, relative) if window and relative != "none" else None
        )
        self.register_buffer("mask", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) -> (N, L, C)."""
        n, tokens, channels = x.shape
        tile = self.window**2 if self.window else tokens
        qkv = self.qkv(x).view(-1, tile, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, K, T, d) each
        attended = attend(q, k, v, self._bias(), self.fused)
        return self.out(attended.transpose(1, 2).reshape(n, tokens, channels))

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
        attended = attend(q, k, v, None, fused=True)
        return x + self.out(attended.transpose(1, 2).reshape(x.shape))

    def _split(self, x: Tensor) -> Tensor:
        n, tokens, channels = x.shape
        return x.view(n, tokens, self.heads, channels // self.heads).transpose(1, 2)  # (N, K, L, d)


def activate(x: Tensor, kind: str) -> Tensor:
    """Apply "gelu" (erf), "gelu-tanh" or "leaky-relu" (slope 0.2, released code)."""
    if kind == "leaky-relu":
        return F.leaky_relu(x, 0.2)
    return F.gelu(x, approximate="tanh" if kind == "gelu-tanh" else "none")


class MLP(nn.Module):
    """Linear, activation, Linear."""

    def __init__(self, channels: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.contract(activate(self.expand(x), self.activation))
