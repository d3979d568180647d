"""Bipartite attention: the pixels of a map attend to a few components, and the components to the pixels.

Generative Adversarial Transformers (Hudson, Zitnick 2021), section 3; compared with dorarad/gansformer,
pytorch_version/training/networks.py (TransformerLayer). Three kinds:

simplex: pixels query keys made of the components.
centroid: what was released under the name of duplex: pixels are compared with learned centroids, which depend on no
    image; more iterations move them by soft k-means.
duplex: the paper's: keys made of the components first gather from the pixels that they attend to, and the pixels
    query the keys that come of it.

No product of pixels with a C x C matrix is made: with q = W x, the scores q k^T are x (k W)^T, and what is gathered
from the pixels is mapped after the gathering. So a layer takes O(pixels x components x C), as section 3 promises.

Deviations, with their reasons: with several heads each has its share of content and of position (the release gives
the first heads content alone and the last position alone); keys and latent positions are built only where something
reads them (in the release they are dead under `centroid`).

Axis letters: N images, L pixels of a map, C channels, k components, d their width, p width of positions, h heads.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.models.gansformer.config import SynthesisConfig
from gtool.nn.precision import without_autocast
from gtool.nn.stylegan2 import EqualizedLinear

Kind = Literal["simplex", "centroid", "duplex"]
NORM_EPS = 1e-8
GATHER_EPS = 1e-8
OPEN_GATE = 1.0  # added to the logit of pixel gates, so that they begin open


class BipartiteAttention(nn.Module):
    """Pixels (N, L, C) modulated by what they read from components (N, k, d)."""

    def __init__(
        self,
        channels: int,
        width: int,  # d
        components: int,  # k
        kind: Kind,
        settings: SynthesisConfig,
        *,
        position_dim: int,  # of the pixels, 0 for none
        component_position_dim: int = 0,
    ) -> None:
        super().__init__()
        self.settings = settings
        heads = settings.heads
        self.query = EqualizedLinear(channels, channels)
        self.query_position = EqualizedLinear(position_dim, channels) if position_dim else None
        self.value = EqualizedLinear(width, channels)
        outputs = 2 * channels if settings.integration == "both" else channels
        self.modulation = EqualizedLinear(channels, outputs)
        self.key = self.key_position = self.key_norm = self.gather = self.gather_position = None
        self.centroids = self.centroid_scale = None
        if kind == "centroid":
            parts = 2 if position_dim else 1
            self.centroids = nn.Parameter(torch.randn(heads, components, parts * channels // heads))
            self.centroid_scale = nn.Parameter(torch.ones(heads, 1, parts * channels // heads))
        else:
            self.key = EqualizedLinear(width, channels)
            if settings.component_positions and component_position_dim:
                self.key_position = EqualizedLinear(component_position_dim, channels)
        if kind == "duplex":
            self.gather = EqualizedLinear(channels, channels)
            self.gather_position = EqualizedLinear(position_dim, channels) if position_dim else None
            self.key_norm = nn.LayerNorm(channels)
        self.pixel_gate = EqualizedLinear(channels, heads) if settings.gate_pixels else None
        gated = settings.gate_pixels and position_dim
        self.pixel_gate_position = EqualizedLinear(position_dim, heads) if gated else None

    def forward(
        self, x: Tensor, components: Tensor, positions: Tensor | None, component_positions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: (N, L, C).
            components: (N, k, d).
            positions: (L, p) of the pixels, or None.
            component_positions: (k, p') of the components, or None.

        Returns:
            (N, L, C), and the attention (N, h, k, L), whose sum over k is 1 where nothing is gated.
        """
        with without_autocast(x):
            components = components.float()
            keys, first = self._keys(components, component_positions)
        attention = self._attend(x, positions, keys, first)
        attention = self._gated(attention, x, positions)
        return self._integrate(x, self._dropped(attention), components), attention

    # Scores.

    def _keys(self, components: Tensor, component_positions: Tensor | None) -> tuple[Tensor, bool]:
        """What pixels are compared with at first, (N or 1, h, k, D), and whether that has parts for positions."""
        heads = self.settings.heads
        if self.centroids is not None and self.centroid_scale is not None:
            return (self.centroids * self.centroid_scale)[None], self.query_position is not None
        assert self.key is not None
        keys = self.key(components)  # (N, k, C)
        if self.key_position is not None and component_positions is not None:
            keys = keys + self.key_position(component_positions.float())
        return _in_heads(keys, heads), False

    def _attend(self, x: Tensor, positions: Tensor | None, keys: Tensor, in_parts: bool) -> Tensor:
        settings = self.settings
        if self.gather is None:
            attention = self._scores(x, positions, keys, in_parts).softmax(dim=2)
            for _ in range(settings.iterations - 1):
                if self.centroid_scale is None:
                    break  # without centroids nothing moves
                centroids = self._gathered_queries(x, positions, attention)
                moved = centroids * self.centroid_scale
                attention = self._scores(x, positions, moved, in_parts).softmax(dim=2)
            return attention
        state = keys
        for _ in range(settings.iterations):
            scores = self._scores(x, positions, state, in_parts)
            state = self._informed(state, x, positions, scores)
        return self._scores(x, positions, state, in_parts).softmax(dim=2)

    def _scores(self, x: Tensor, positions: Tensor | None, keys: Tensor, in_parts: bool) -> Tensor:
        """k q^T / sqrt(C / h) in float32: keys (N or 1, h, k, C/h), or content and position 2 C/h -> (N, h, k, L).

        Pixels come last: a softmax over the few components is then vectorised over pixels, which is 17 times as fast.
        """
        n, pixels, channels = x.shape
        heads, count = keys.shape[1:3]
        scale = 1 / math.sqrt(channels // heads)
        content, place = keys.chunk(2, dim=-1) if in_parts else (keys, keys)
        weight, bias = self.query.scaled
        with without_autocast(x):
            pulled = _pull_back(content, weight, heads) * scale  # (N or 1, h k, C)
            shift = _dot_bias(content, bias, heads).unsqueeze(-1) * scale  # (N or 1, h k, 1)
            if self.query_position is not None and positions is not None:
                weight, bias = self.query_position.scaled
                pulled_place = _pull_back(place, weight, heads) * scale  # (N or 1, h k, p)
                shift = shift + _dot_bias(place, bias, heads).unsqueeze(-1) * scale
                shift = shift + pulled_place @ positions.float().T  # (N or 1, h k, L)
        # In this order the gradient of x comes out as x lies in memory; added up with others it would else be slow.
        scores = (x @ pulled.to(x.dtype).transpose(1, 2)).transpose(1, 2)  # (N, h k, L)
        return (scores.float().contiguous() + shift).view(n, heads, count, pixels)

    def _gather(self, weights: Tensor, x: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Means of pixels and of their positions under weights (N, h, k, L): (N, h, k, C), (N, h, k, p)."""
        n, heads, count, _ = weights.shape
        rows = weights.flatten(1, 2)  # (N, h k, L)
        content = (rows.to(x.dtype) @ x).float().view(n, heads, count, -1)
        if positions is None:
            return content, None
        with without_autocast(x):
            return content, (rows.float() @ positions.float()).view(n, heads, count, -1)

    def _gathered_queries(self, x: Tensor, positions: Tensor | None, attention: Tensor) -> Tensor:
        """Soft k-means: the mean query of the pixels of each component, (N, h, k, D)."""
        weights = attention / (attention.sum(dim=-1, keepdim=True) + GATHER_EPS)
        content, place = self._gather(weights, x, positions)
        with without_autocast(x):
            total = weights.sum(dim=-1, keepdim=True)  # (N, h, k, 1): 1, but where no pixel attends
            parts = [_map_heads(content, self.query, total)]
            if self.query_position is not None and place is not None:
                parts.append(_map_heads(place, self.query_position, total))
        return torch.cat(parts, dim=-1)

    def _informed(self, keys: Tensor, x: Tensor, positions: Tensor | None, scores: Tensor) -> Tensor:
        """K <- LayerNorm(K + a(K, X, X)): keys with what they gather from the pixels, (N, h, k, C / h)."""
        assert self.gather is not None
        assert self.key_norm is not None
        weights = scores.softmax(dim=-1)
        content, place = self._gather(weights, x, positions)
        with without_autocast(x):
            news = _map_heads(content, self.gather)
            if self.gather_position is not None and place is not None:
                news = news + _map_heads(place, self.gather_position)
            whole = (keys + news).transpose(1, 2).flatten(2)  # (N, k, C)
            return _in_heads(self.key_norm(whole), self.settings.heads)

    # Gates and dropout.

    def _gated(self, attention: Tensor, x: Tensor, positions: Tensor | None) -> Tensor:
        if self.pixel_gate is None:
            return attention
        gate = self.pixel_gate(x)  # (N, L, h)
        if self.pixel_gate_position is not None and positions is not None:
            gate = gate + self.pixel_gate_position(positions)
        return attention * (gate.float() + OPEN_GATE).sigmoid().transpose(1, 2)[:, :, None]

    def _dropped(self, attention: Tensor) -> Tensor:
        """Leave out single weights and whole components, at half the rate each."""
        rate = self.settings.dropout / 2
        if not self.training or rate == 0:
            return attention
        attention = F.dropout(attention, rate)
        return attention * F.dropout(torch.ones_like(attention[..., :1]), rate)

    # Integration.

    def _integrate(self, x: Tensor, attention: Tensor, components: Tensor) -> Tensor:
        """gamma(A V) * norm(x) + beta(A V)."""
        heads = attention.shape[1]
        with without_autocast(x):
            values = _in_heads(self.value(components), heads)  # (N, h, k, C/h)
            weight, bias = self.modulation.scaled
            by_head = weight.view(-1, heads, values.shape[-1]).permute(1, 2, 0)  # (h, C / h, O)
            pushed = _per_head(values, by_head)  # (N, h, k, O)
            pushed = pushed.flatten(1, 2) * self.settings.attention_gain
        rows = attention.flatten(1, 2).to(x.dtype)  # (N, h k, L)
        control = rows.transpose(1, 2) @ pushed.to(x.dtype)  # (N, L, O)
        if bias is not None:
            control = control + (bias * self.settings.attention_gain).to(x.dtype)
        normed = self._normed(x)
        if self.settings.integration == "add":
            return normed + control
        if self.settings.integration == "mul":
            return torch.addcmul(normed, normed, control)
        gain, shift = control.chunk(2, dim=-1)
        return torch.addcmul(normed, normed, gain) + shift

    def _normed(self, x: Tensor) -> Tensor:
        """Layer norm over channels or instance norm over pixels; of it `add` takes the mean, `mul` the scale alone."""
        kind, integration = self.settings.norm, self.settings.integration
        if kind == "none":
            return x
        if kind == "layer" and integration == "both":
            return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)
        axis = -1 if kind == "layer" else 1
        if integration != "mul":
            x = x - x.mean(dim=axis, keepdim=True)
        if integration != "add":
            power = x.float().square().mean(dim=axis, keepdim=True)
            x = x * (power + NORM_EPS).rsqrt().to(x.dtype)
        return x


def _in_heads(x: Tensor, heads: int) -> Tensor:
    """(N, k, C) -> (N, h, k, C / h)."""
    n, count, channels = x.shape
    return x.view(n, count, heads, channels // heads).transpose(1, 2)


def _per_head(x: Tensor, matrices: Tensor) -> Tensor:
    """Each head's own matrix: (N, h, k, A), (h, A, B) -> (N, h, k, B), one product a head for the whole batch."""
    n, heads, count, width = x.shape
    rows = x.transpose(0, 1).reshape(heads, n * count, width)
    return torch.bmm(rows, matrices).view(heads, n, count, -1).transpose(0, 1)


def _pull_back(keys: Tensor, weight: Tensor, heads: int) -> Tensor:
    """k W: keys (N, h, k, C / h) and a query map (C, I) -> (N, h k, I)."""
    return _per_head(keys, weight.view(heads, -1, weight.shape[1])).flatten(1, 2)


def _dot_bias(keys: Tensor, bias: Tensor | None, heads: int) -> Tensor:
    """k b: (N, h, k, C / h) -> (N, h k)."""
    assert bias is not None
    return _per_head(keys, bias.view(heads, -1, 1)).flatten(1)


def _map_heads(x: Tensor, linear: EqualizedLinear, total: Tensor | float = 1.0) -> Tensor:
    """Each head's share of a linear map of a mean, whose weights sum to `total`: (N, h, k, I) -> (N, h, k, O / h)."""
    weight, bias = linear.scaled
    assert bias is not None
    heads = x.shape[1]
    by_head = weight.view(heads, -1, weight.shape[1]).transpose(1, 2)  # (h, I, O / h)
    return _per_head(x, by_head) + bias.view(1, heads, 1, -1) * total
