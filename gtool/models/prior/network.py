"""The prior over codes: a causal transformer that reads a condition and predicts the codes of an image one by one.

Taming Transformers for High-Resolution Image Synthesis (Esser, Rombach, Ommer, CVPR 2021), section 3.2, compared with
CompVis/taming-transformers, taming/modules/transformer/mingpt.py and taming/models/cond_transformer.py; its predecessor
image-GPT (Chen et al., ICML 2020), compared with openai/image-gpt, src/model.py. 304,932,864 parameters with 24 layers,
16 heads, width 1024, 1024 codes and 512 positions (counted in the release).

Deviations: conditions have ids and rows of their own (`shared_embedding` brings the released table back); logits are of
codes alone; query, key and value are one matrix; the position table has as many rows as can be used.

Axis letters: N images, h w grid of codes, L = h w codes, M condition tokens, T tokens, D width, K codebook size.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from gtool.models.prior.blocks import Cache, CausalBlock, make_norm
from gtool.models.prior.config import PriorConfig
from gtool.models.prior.orders import cells_in_order

INIT_STD = 0.02
POSITION_STD = 0.01  # of image-GPT; those of the released prior start at zero


class Prior(nn.Module):
    """Condition tokens and codes -> logits of the codes."""

    cells: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        width, plain = config.width, config.kind == "gpt"
        self.codes = nn.Embedding(config.codebook_size, width)
        own = not config.shared_embedding
        self.conditions = nn.Embedding(config.condition_size, width) if own else None
        self.positions = nn.Parameter(torch.zeros(config.positions or config.tokens, width))
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
        """N(0, 0.02), zero biases, as released; image-GPT scales its attention by width and depth."""
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

    def in_order(self, codes: Tensor) -> Tensor:
        """Return codes (N, h, w) as the sequence (N, L) in which they are predicted; one of these as it is."""
        return codes if codes.ndim == 2 else codes.flatten(1)[:, self.cells]

    def forward(self, condition: Tensor, codes: Tensor) -> Tensor:
        """Return the logits of every code given the condition and the codes before it.

        Args:
            condition: int64 (N, M) ids from 0 to condition_size - 1; zeros for none. A map may come as (N, h, w).
            codes: int64 (N, h, w), or (N, L) in order; the last in order is not read.

        Returns:
            fp32 (N, L, K) in order.
        """
        sequence = self.in_order(codes)[:, :-1]
        x = self.dropout(self._embed(condition, sequence))
        for block in self.blocks:
            x = block(x)
        return self._logits(x[:, self.config.condition_length - 1 :])

    def example_inputs(self) -> tuple[Tensor, Tensor]:
        """Return the condition and the codes of one image."""
        config, device = self.config, self.positions.device
        condition = torch.zeros(1, config.condition_length, dtype=torch.int64, device=device)
        return condition, torch.zeros(1, *config.grid, dtype=torch.int64, device=device)

    def predict(self, condition: Tensor, known: Tensor, places: Tensor) -> Tensor:
        """Return the logits of one code of every sequence; what stands at its place and after it has no influence.

        Args:
            condition: as of `forward`.
            known: int64 (N, t) the first codes in order, t < L.
            places: int64 (N,) in order, from 0 to t.

        Returns:
            fp32 (N, K).
        """
        x = self._embed(condition, known)
        for block in self.blocks:
            x = block(x)
        lanes = torch.arange(len(x), device=x.device)
        return self._logits(x[lanes, self.config.condition_length - 1 + places])

    def start(
        self, condition: Tensor, known: Tensor | None = None, steps: int | None = None
    ) -> tuple[Cache, Tensor]:
        """Read the condition and the first codes in one pass.

        Args:
            condition: as of `forward`.
            known: int64 (N, t) the first codes in order, t < L; None for none.
            steps: how often `extend` can be called; None until the last code.

        Returns:
            What `extend` goes on with, and fp32 logits (N, K) of the next code.
        """
        x = self._embed(condition, condition.new_empty(len(condition), 0) if known is None else known)
        first = self.blocks[0]
        assert isinstance(first, CausalBlock)
        heads, width = self.config.heads, self.config.width
        room = self.config.tokens if steps is None else x.shape[1] + steps
        shape = (self.config.layers, len(x), heads, room, width // heads)
        cache = Cache(shape, first.attention.qkv.weight)
        return cache, self._run(cache, x)

    def extend(self, cache: Cache, codes: Tensor) -> Tensor:
        """Add the next code of every image, int64 (N,), to the cache; return fp32 logits (N, K) of the one after."""
        x = self.codes(codes) + self.positions[cache.length]  # (N, D)
        return self._run(cache, x.unsqueeze(1))

    def _run(self, cache: Cache, x: Tensor) -> Tensor:
        for layer, block in enumerate(self.blocks):
            x = block(x, cache, layer)
        cache.length += x.shape[1]
        return self._logits(x[:, -1])

    def _embed(self, condition: Tensor, sequence: Tensor) -> Tensor:
        table = self.codes if self.conditions is None else self.conditions
        read = torch.cat([table(condition.flatten(1)), self.codes(sequence)], dim=1)  # (N, T, D)
        return read + self.positions[: read.shape[1]]

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x))
        return logits.float()


def for_sampling(prior: Prior, dtype: torch.dtype) -> Prior:
    """Return a prior in eval mode whose matrices inside the blocks are in `dtype`; all other tensors are shared.

    Norms, embeddings, the sum that blocks add to, and the head stay fp32: they take few bytes of a step.
    """
    shared = {id(tensor): tensor for tensor in (*prior.parameters(), *prior.buffers())}
    copied = copy.deepcopy(prior, shared)
    for module in copied.blocks.modules():
        if isinstance(module, nn.Linear):
            for name, tensor in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(tensor.detach().to(dtype), requires_grad=False))
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
