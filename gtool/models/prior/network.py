"""The prior over codes: a causal transformer that reads a condition and predicts the codes of an image one by one.

Taming Transformers for High-Resolution Image Synthesis (Esser, Rombach, Ommer, CVPR 2021), section 3.2, compared with
CompVis/taming-transformers, taming/modules/transformer/mingpt.py and taming/models/cond_transformer.py; its predecessor
image-GPT (Chen et al., ICML 2020), compared with openai/image-gpt, src/model.py. 304,932,864 parameters with 24 layers,
16 heads, width 1024, 1024 codes and 512 positions (counted in the release).

With `orders = any` a prior predicts codes in any order, after RAR (Yu et al. 2024, "Randomized Autoregressive Visual
Generation", compared with bytedance/1d-tokenizer, modeling/rar.py): a token has the position of its own cell, and is
told the cell that comes next. Unlike there, a condition of every cell is no prefix, which would double the tokens: a
token is told what surrounds the next cell in it, and what stands before the codes is the mean of the condition.

Deviations: conditions have ids and rows of their own (`shared_embedding` brings the released table back); logits are of
codes alone; query, key and value are one matrix; the position table has as many rows as can be used.

Axis letters: N images, h w grid of codes, L = h w codes, M condition tokens, T tokens, D width, K codebook size; in
attention K heads, d = D / K, S tokens that a cache has room for.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.models.prior.config import SPATIAL, PriorConfig
from gtool.nn.attention import MLP, plain_attention
from gtool.runtime.precision import has_amx

# Tokens up to which training in bf16 on AMX is faster by plain products than by the fused kernel in fp32: 1.74 times at
# 127. Without AMX they are equal there, and plain ones are half as fast at 511.
FEW_TOKENS = 256
NORM_EPS = 1e-5
INIT_STD = 0.02
AROUND = 7  # cells a side that a prior of any order is told of a map, around the next one
WAVES = 0.1  # amplitude of positions at the start, of a prior of any order
POSITION_STD = 0.01  # of image-GPT; those of the released prior start at zero


class Cache:
    """Keys and values of all layers, in memory that is taken once.

    keys, values: (layers, N, K, S, d); `length` tokens of them are filled, the rest has no influence.
    order, aims: of a prior of any order, as of `Prior.forward` and `Prior._aims`.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], like: Tensor) -> None:
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.length = 0
        self.order: Tensor | None = None
        self.aims: Tensor | None = None

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

    def forward(self, x: Tensor, cache: Cache | None = None, layer: int = 0, wanted: int = 1) -> Tensor:
        """(N, T, D) -> (N, T, D).

        cache: what earlier tokens left, to which these T are added. wanted: so many last tokens, which are not seen by
        each other.
        """
        n, tokens, width = x.shape
        qkv = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads)
        learning = qkv.requires_grad and qkv.dtype == torch.bfloat16 and not self.dropout
        if learning and tokens <= FEW_TOKENS and has_amx(qkv.device):
            return self.out(self._attend_plainly(qkv))  # type: ignore[no-any-return]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (N, K, T, d) each
        if cache is not None:
            start, end = cache.length, cache.length + tokens
            cache.keys[layer, :, :, start:end] = k
            cache.values[layer, :, :, start:end] = v
        if cache is not None and tokens == 1:
            seen = look_back(q, cache.keys[layer], cache.values[layer], end)
        elif cache is not None and (start or wanted > 1):
            mask = visible(tokens, 0 if start else self.unmasked, q.device, wanted)
            mask = F.pad(mask, (start, 0), value=True)
            k, v = cache.keys[layer, :, :, :end], cache.values[layer, :, :, :end]
            seen = F.scaled_dot_product_attention(q, k, v, mask)
        else:
            seen = self._attend(q, k, v)  # (N, K, T, d)
        return self.out(seen.transpose(1, 2).reshape(n, tokens, width))

    def _attend_plainly(self, qkv: Tensor) -> Tensor:
        """(N, T, 3, K, d) -> (N, T, D), in operations that AMX multiplies."""
        seen = visible(qkv.shape[1], self.unmasked, qkv.device)
        return plain_attention(qkv, torch.zeros(seen.shape).masked_fill(~seen, -math.inf)[None])

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


def visible(tokens: int, unmasked: int, device: torch.device, apart: int = 1) -> Tensor:
    """Return bool (T, T): row i is what token i sees; the last ones, `apart` of them, do not see each other."""
    mask = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()
    mask[:unmasked, :unmasked] = True
    mask[-apart:, -apart:] = torch.eye(apart, dtype=torch.bool, device=device)
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

    is_block = True  # for train.recompute

    def __init__(self, width: int, heads: int, *, plain: bool, dropout: float, unmasked: int) -> None:
        super().__init__()
        self.norm1 = make_norm(width, plain)
        self.attention = CausalAttention(width, heads, bias=plain, dropout=dropout, unmasked=unmasked)
        self.norm2 = make_norm(width, plain)
        self.mlp = MLP(width, 4 * width, "gelu" if plain else "gelu-sigmoid", plain)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: Cache | None = None, layer: int = 0, wanted: int = 1) -> Tensor:
        """(N, T, D) -> (N, T, D); arguments as of `CausalAttention`."""
        dtype = self.attention.out.weight.dtype
        x = x + self.dropout(self.attention(self.norm1(x).to(dtype), cache, layer, wanted))
        return x + self.dropout(self.mlp(self.norm2(x).to(dtype)))


def make_norm(width: int, plain: bool) -> nn.Module:
    """Return a layer norm, or x / rms times a gain: image-GPT's, which takes no mean away and has no bias."""
    return nn.LayerNorm(width, NORM_EPS) if plain else nn.RMSNorm(width, NORM_EPS)


class Prior(nn.Module):
    """Condition tokens and codes -> logits of the codes."""

    cells: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        width, plain = config.width, config.kind == "gpt"
        self.codes = nn.Embedding(config.codebook_size, width)
        self.conditions = nn.Embedding(config.condition_size, width) if not config.shared_embedding else None
        any_order = config.orders == "any"  # in which every code may be read
        self.positions = nn.Parameter(torch.zeros(config.positions or config.tokens + any_order, width))
        self.targets = nn.Parameter(torch.zeros(config.length, width)) if any_order else None
        is_map = any_order and config.condition in SPATIAL
        self.around = nn.Conv2d(width, width, AROUND, padding="same", groups=width) if is_map else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            CausalBlock(
                width, config.heads, plain=plain, dropout=config.dropout, unmasked=config.unmasked_prefix
            )
            for _ in range(config.layers)
        )
        self.norm = make_norm(width, plain)
        self.head = nn.Linear(width, config.codebook_size, bias=False)
        cells = torch.tensor(cells_in_order(config.order, *config.grid), device="cpu")
        self.register_buffer("cells", cells, persistent=False)  # (L,) in order
        self._initialize()

    def _initialize(self) -> None:
        """N(0, 0.02), zero biases, as released; image-GPT scales its attention by width and depth.

        Of a prior of any order, positions begin as waves.
        """
        image_gpt, width = self.config.kind == "image-gpt", self.config.width
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        if image_gpt:
            nn.init.zeros_(self.head.weight)
            nn.init.normal_(self.positions, std=POSITION_STD)
            for block in self.blocks:
                assert isinstance(block, CausalBlock)
                nn.init.normal_(block.attention.qkv.weight, std=width**-0.5)
                nn.init.normal_(block.attention.out.weight, std=(width * self.config.layers) ** -0.5)
        if self.targets is not None:
            # Alike for a cell that is read and one that comes, so that attention finds neighbours from the start.
            waves = WAVES * grid_waves(*self.config.grid, width)
            nn.init.zeros_(self.positions)
            with torch.no_grad():
                self.targets.copy_(waves)
                self.positions[self.config.condition_length :][: len(waves)] = waves

    def in_order(self, codes: Tensor, order: Tensor | None = None) -> Tensor:
        """Return codes (N, h, w) as the sequence (N, L) in which they are predicted; one of these as it is.

        order: as of `forward`.
        """
        if codes.ndim == 2:
            return codes
        codes = codes.flatten(1)
        return codes[:, self.cells] if order is None else codes.gather(1, order.expand_as(codes))

    def forward(self, condition: Tensor, codes: Tensor, order: Tensor | None = None) -> Tensor:
        """Return the logits of every code given the condition and the codes before it.

        Args:
            condition: int64 (N, M) ids from 0 to condition_size - 1; zeros for none. A map may come as (N, h, w).
            codes: int64 (N, h, w), or (N, L) in order; the last in order is not read.
            order: int64 (N, L), or (1, L) for all, of a prior of any order: the cells, i w + j, in order. None for
                `config.order`.

        Returns:
            fp32 (N, L, K) in order.
        """
        x = self.dropout(self._read(condition, self.in_order(codes, order)[:, :-1], order))
        for block in self.blocks:
            x = block(x)
        return self._logits(x[:, self.config.condition_length - 1 :])

    def example_inputs(self) -> tuple[Tensor, Tensor]:
        """Return the condition and the codes of one image."""
        config, device = self.config, self.positions.device
        condition = torch.zeros(1, config.condition_ids, dtype=torch.int64, device=device)
        return condition, torch.zeros(1, *config.grid, dtype=torch.int64, device=device)

    def predict(
        self, condition: Tensor, known: Tensor, places: Tensor, order: Tensor | None = None
    ) -> Tensor:
        """Return the logits fp32 (N, K) of one code of every sequence; what stands there and after it has no influence.

        known: int64 (N, t) the first codes in order, t < L. places: int64 (N,) in order, from 0 to t.
        """
        x = self._read(condition, known, order)
        for block in self.blocks:
            x = block(x)
        lanes = torch.arange(len(x), device=x.device)
        return self._logits(x[lanes, self.config.condition_length - 1 + places])

    def start(
        self,
        condition: Tensor,
        known: Tensor | None = None,
        steps: int | None = None,
        order: Tensor | None = None,
        wanted: int = 1,
    ) -> tuple[Cache, Tensor]:
        """Read the condition and the first codes, int64 (N, t) in order with t < L, in one pass.

        steps: how many codes `extend` can add; None until the last code.
        wanted: how many codes are predicted at once, without each other; 1 where there is one order.

        Returns what `extend` goes on with, and fp32 logits (N, wanted, K) of the next codes.
        """
        known = condition.new_empty(len(condition), 0) if known is None else known
        x = self._embed(condition, known, order)
        first = self.blocks[0]
        assert isinstance(first, CausalBlock)
        heads, width = self.config.heads, self.config.width
        room = self.config.tokens if steps is None else x.shape[1] + steps
        cache = Cache((len(self.blocks), len(x), heads, room, width // heads), first.attention.qkv.weight)
        cache.order, cache.aims = order, self._aims(condition, order)
        return cache, self._run(cache, x, wanted)

    def extend(self, cache: Cache, codes: Tensor, wanted: int = 1) -> Tensor:
        """Add the next codes of every image, int64 (N, n), to the cache; n is what was wanted before.

        Returns fp32 logits (N, wanted, K) of those after them.
        """
        places = slice(cache.length, cache.length + codes.shape[1])
        return self._run(cache, self.codes(codes) + self._positions(cache.order)[..., places, :], wanted)

    def _run(self, cache: Cache, x: Tensor, wanted: int) -> Tensor:
        tokens = x.shape[1]
        if cache.aims is not None:
            # The last token once for each wanted cell; the cache keeps the one that is told the first of them.
            x = torch.cat([x, x[:, -1:].expand(-1, wanted - 1, -1)], dim=1)
            x = x + cache.aims[:, cache.length : cache.length + x.shape[1]]
        for layer, block in enumerate(self.blocks):
            x = block(x, cache, layer, wanted)
        cache.length += tokens
        return self._logits(x[:, -wanted:])

    def _read(self, condition: Tensor, sequence: Tensor, order: Tensor | None = None) -> Tensor:
        """Return what the blocks read, (N, T, D): the tokens of a sequence, with what comes next."""
        x, aims = self._embed(condition, sequence, order), self._aims(condition, order)
        return x if aims is None else x + aims[:, : x.shape[1]]

    def _embed(self, condition: Tensor, sequence: Tensor, order: Tensor | None) -> Tensor:
        table = self.codes if self.conditions is None else self.conditions
        before = table(condition.flatten(1))
        before = before if self.around is None else before.mean(dim=1, keepdim=True)
        read = torch.cat([before, self.codes(sequence)], dim=1)  # (N, T, D)
        return read + self._positions(order)[..., : read.shape[1], :]

    def _positions(self, order: Tensor | None) -> Tensor:
        """Return the positions of a sequence, (T, D), or (N, T, D) of orders (N, L)."""
        if order is None:
            return self.positions
        before = torch.arange(self.config.condition_length, device=order.device)
        rows = torch.cat([before.expand(order.shape[0], -1), self.config.condition_length + order], dim=1)
        return F.embedding(rows, self.positions)

    def _aims(self, condition: Tensor, order: Tensor | None) -> Tensor | None:
        """Return what is added to the tokens of a sequence for the cell that comes next, (N or 1, L, D)."""
        if self.targets is None:
            return None
        order = self.cells[None] if order is None else order
        aims = F.embedding(order, self.targets)
        if self.around is not None and self.conditions is not None:
            maps = self.conditions(condition.view(-1, *self.config.grid))  # (N, h, w, D)
            maps = maps + self.around(maps.movedim(-1, 1)).movedim(1, -1)
            maps = maps.flatten(1, 2)
            aims = aims + maps.gather(1, order[..., None].expand_as(maps))
        return aims

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x))
        return logits.float()


class SamplingLinear(nn.Module):
    """A linear map that is not trained, (..., D) -> (..., D'); one row is a product of a matrix and a vector.

    On a core with AMX that reads weights as fast as its memory does: 42 ms for 24 layers of width 1024, 65 ms by the
    product of matrices that `nn.Linear` calls (measured).
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().to(dtype), requires_grad=False)
        bias = linear.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D')."""
        if x.numel() != x.shape[-1] or not has_amx(x.device):
            return F.linear(x, self.weight, self.bias)
        row = x.flatten()
        y = self.weight @ row if self.bias is None else torch.addmv(self.bias, self.weight, row)
        return y.view(*x.shape[:-1], -1)


def for_sampling(prior: Prior, dtype: torch.dtype) -> Prior:
    """Return a prior in eval mode whose matrices inside the blocks are in `dtype`; all other tensors are shared.

    Norms, embeddings, the sum that blocks add to, and the head stay fp32: they take few bytes of a step.
    """
    shared = {id(tensor): tensor for tensor in (*prior.parameters(), *prior.buffers())}
    copied = copy.deepcopy(prior, shared)
    for module in list(copied.blocks.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, SamplingLinear(child, dtype))
    return copied.eval()


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups for an optimizer: the weights of linear maps, which decay, and all else, which does not.

    Biases, norms, tables of embeddings and positions are all else (the released optimizer's rule).
    """
    linear = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear)}
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) in linear], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in linear], "weight_decay": 0.0},
    ]


def grid_waves(height: int, width: int, dim: int) -> Tensor:
    """Return (height width, dim): sines and cosines of rows, then of columns; their periods are 2 cells to 4 sides."""
    axes = []
    for side in (height, width):
        periods = 2.0 * (2 * side) ** torch.linspace(0, 1, dim // 4, device="cpu")
        phase = 2 * math.pi * (torch.arange(side, device="cpu") + 0.25)[:, None] / periods  # (side, dim / 4)
        axes.append(torch.cat([phase.sin(), phase.cos()], dim=1))
    rows = axes[0][:, None].expand(-1, width, -1)
    columns = axes[1][None].expand(height, -1, -1)
    waves = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    return F.pad(waves, (0, dim - waves.shape[1]))


def cells_in_order(order: str, height: int, width: int) -> list[int]:
    """Return the h w cells, a cell being i w + j, in the order in which they are predicted.

    As taming/modules/transformer/permuter.py where that has them: its spirals need even squares, its z-curve and
    subsampling powers of two.

    order: `raster` row by row; `alternate` the same, every other row backwards; `subsample` every other cell of every
    other row first, again and again; `z-curve` by Morton number; `spiral-in` from the last cell up along the border;
    `spiral-out` that backwards; `random` a fixed shuffle.
    """
    size = height * width
    if order.startswith("spiral"):
        cells, grid = [], np.arange(size).reshape(height, width)
        while grid.size:  # the last column upwards, then what is left, turned by a quarter
            cells += grid[::-1, -1].tolist()
            grid = np.rot90(grid[:, :-1], -1)
        return cells if order == "spiral-in" else cells[::-1]
    if order == "random":
        # The generator of the release, whose numbers are the same in every version of numpy.
        return [int(cell) for cell in np.random.RandomState(1).permutation(size)]
    bits = range(max(height, width).bit_length())
    keys: dict[str, Callable[[int, int], tuple[int, ...]]] = {
        "raster": lambda i, j: (i, j),
        "alternate": lambda i, j: (i, -j if i % 2 else j),
        # Parities of row and column, the finest first.
        "subsample": lambda i, j: tuple(part >> bit & 1 for bit in bits for part in (i, j)),
        # The same bits, the coarsest first.
        "z-curve": lambda i, j: tuple(part >> bit & 1 for bit in reversed(bits) for part in (i, j)),
    }
    return sorted(range(size), key=lambda cell: keys[order](*divmod(cell, width)))
