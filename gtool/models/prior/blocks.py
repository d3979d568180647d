"""Attention in which a token sees itself and those before it, with a cache of what earlier tokens left.

Axis letters: N batch, T tokens, D width, K heads, d = D / K, S tokens that a cache has room for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.nn.attention import MLP

NORM_EPS = 1e-5


class Cache:
    """Keys and values of all layers, in memory that is taken once.

    keys, values: (layers, N, K, S, d); `length` tokens of them are filled, the rest is zero.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], like: Tensor) -> None:
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    @property
    def room(self) -> int:
        """Tokens that can still be added."""
        return self.keys.shape[3] - self.length


class CausalAttention(nn.Module):
    """Multi-head attention, causal but for the first `unmasked` tokens, which all see each other."""

    def __init__(self, width: int, heads: int, *, bias: bool, dropout: float, unmasked: int) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.unmasked = unmasked
        self.qkv = nn.Linear(width, 3 * width, bias)
        self.out = nn.Linear(width, width, bias)

    def forward(self, x: Tensor, cache: Cache | None = None, layer: int = 0) -> Tensor:
        """(N, T, D) -> (N, T, D).

        cache: what earlier tokens left, to which these T are added; all T at once are the first ones, or T is 1.
        """
        n, tokens, width = x.shape
        qkv = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (N, K, T, d) each
        if cache is not None:
            start, end = cache.length, cache.length + tokens
            cache.keys[layer, :, :, start:end] = k
            cache.values[layer, :, :, start:end] = v
        if cache is not None and tokens == 1:
            seen = look_back(q, cache.keys[layer], cache.values[layer], end)
        else:
            seen = self._attend(q, k, v)  # (N, K, T, d)
        out: Tensor = self.out(seen.transpose(1, 2).reshape(n, tokens, width))
        return out

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        dtype = q.dtype
        if q.requires_grad and q.device.type == "cpu":
            # The backward pass of the fused kernel is slow in bf16: of 127 tokens it takes twice as long (measured).
            q, k, v = q.float(), k.float(), v.float()
        if self.unmasked > 1:
            mask = visible(q.shape[2], self.unmasked, q.device)
            return F.scaled_dot_product_attention(q, k, v, mask, dropout).to(dtype)
        return F.scaled_dot_product_attention(q, k, v, None, dropout, is_causal=True).to(dtype)


def visible(tokens: int, unmasked: int, device: torch.device) -> Tensor:
    """Return bool (T, T): row i is what token i sees."""
    mask = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()
    mask[:unmasked, :unmasked] = True
    return mask


def look_back(q: Tensor, keys: Tensor, values: Tensor, length: int) -> Tensor:
    """Attention of one token, (N, K, 1, d), to the first ones that a cache (N, K, S, d) holds: (N, K, 1, d)."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, keys[:, :, :length], values[:, :, :length])
    # Two products of matrices and vectors take a third of the fused kernel's time in bf16 (measured). There the library
    # copies a part of a cache before it multiplies, so they are of the whole: weights of what is not filled are 0.
    end = length if keys.dtype == torch.float32 else keys.shape[2]
    scores = (keys[:, :, :end] @ (q * q.shape[-1] ** -0.5).transpose(-2, -1)).squeeze(-1)  # (N, K, end)
    weights = scores[:, :, :length].float().softmax(dim=-1).to(values.dtype)
    return F.pad(weights, (0, end - length)).unsqueeze(2) @ values[:, :, :end]


class CausalBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the sum x stays in fp32 whatever the weights are in.

    plain: LayerNorm, exact GELU and biases (GPT-2); otherwise RMS norms, sigmoid GELU and no biases (image-GPT).
    """

    def __init__(self, width: int, heads: int, *, plain: bool, dropout: float, unmasked: int) -> None:
        super().__init__()
        self.norm1 = make_norm(width, plain)
        self.attention = CausalAttention(width, heads, bias=plain, dropout=dropout, unmasked=unmasked)
        self.norm2 = make_norm(width, plain)
        self.mlp = MLP(width, 4 * width, "gelu" if plain else "gelu-sigmoid", plain)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: Cache | None = None, layer: int = 0) -> Tensor:
        """(N, T, D) -> (N, T, D); cache and layer as of `CausalAttention`."""
        dtype = self.attention.out.weight.dtype
        x = x + self.dropout(self.attention(self.norm1(x).to(dtype), cache, layer))
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x).to(dtype)))
        return out


def make_norm(width: int, plain: bool) -> nn.Module:
    """Return a layer norm, or x / rms times a gain: image-GPT's, which takes no mean away and has no bias."""
    return nn.LayerNorm(width, NORM_EPS) if plain else nn.RMSNorm(width, NORM_EPS)
