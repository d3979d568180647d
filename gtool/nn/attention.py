"""Multi-head attention over the tokens of square tiles, with relative positions; cross-attention; the MLP.

Axis letters: N batch, L tokens of an image, T tokens of a tile, B = N L / T tiles of the batch, C channels,
K heads, d = C / K.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.nn import second_derivatives
from gtool.nn.positions import RelativePositionBias

# Tokens up to which, on a CPU, the library's fused backward pass takes two to three times as long as plain operations
# (measured). It has no gradient for the bias there.
MANY_TOKENS = 512


def attend(qkv: Tensor, bias: Tensor | None, twice: bool = False) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias) v.

    Args:
        qkv: (B, T, 3, K, d).
        bias: (K, T, T) or None.
        twice: a second derivative will be taken; fused kernels have none on a CPU.

    Returns:
        (B, T, K d).
    """
    learns_bias = bias is not None and bias.requires_grad
    slow_when_fused = twice or (qkv.device.type == "cpu" and (learns_bias or qkv.shape[1] < MANY_TOKENS))
    if torch.is_grad_enabled() and (qkv.requires_grad or learns_bias) and slow_when_fused:
        return plain_attention(qkv, bias)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, K, T, d) each
    mask = None if bias is None else bias.to(qkv.dtype).unsqueeze(0)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def plain_attention(qkv: Tensor, bias: Tensor | None) -> Tensor:
    """As `attend`, in operations that have every derivative; logits and their softmax are fp32."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, K, T, d) each
    logits = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)  # (B, K, T, T)
    # The sum with an fp32 bias is fp32 in one pass.
    logits = _precise(logits if bias is None else logits + bias)
    out: Tensor = (logits.softmax(dim=-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
    return out


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
