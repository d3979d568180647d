"""What is exported of tokenizers and priors: images to codes, codes to images, codes to logits of codes.

The files work on pictures of the size of the training. A prior's logits are those of a whole sequence at once, each
given the codes before it; whoever samples with it calls it once a code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gtool.export.onnx import Exportable, Tensors, describe
from gtool.runtime.random import hashed_uniform
from gtool.runtime.torch_random import hashed_normal

PIXELS = "round(127.5 * images + 127.5), 0 to 255"


class Encoding(nn.Module):
    """Images (N, C, R, R) in [-1, 1] -> codes (N, h, w)."""

    def __init__(self, tokenizer: nn.Module) -> None:
        super().__init__()
        self.tokenizer: Any = tokenizer

    def forward(self, images: Tensor) -> Tensor:
        """Encode."""
        codes: Tensor = self.tokenizer.encode(images)
        return codes


class Decoding(nn.Module):
    """Codes (N, h, w) -> images (N, C, R, R) in [-1, 1]."""

    def __init__(self, tokenizer: nn.Module) -> None:
        super().__init__()
        self.tokenizer: Any = tokenizer

    def forward(self, codes: Tensor) -> Tensor:
        """Decode, and clamp as pixels are."""
        images: Tensor = self.tokenizer.decode(codes)
        return images.clamp(-1, 1)


def of_tokenizer(
    tokenizer: Any, meta: Mapping[str, Any], resolution: int | None = None
) -> dict[str, Exportable]:
    """Return `encoder` and `decoder` to export.

    tokenizer: in eval mode, on the CPU.
    meta: of its weights file.
    resolution: pixels of a side; None for that of its training.
    """
    resolution = resolution or tokenizer.resolution
    side, size = resolution // tokenizer.down, tokenizer.codebook_size
    channels = tokenizer.image_channels
    images = f"images (N, {channels}, {resolution}, {resolution}) float32: in [-1, 1]"
    codes = f"codes (N, {side}, {side}) int64: 0 to {size - 1}"

    def pictures(batch: int) -> Tensors:
        count = channels * resolution**2
        drawn = hashed_normal(batch, torch.arange(batch), count, "images")
        return ((0.5 * drawn).clamp(-1, 1).view(batch, channels, resolution, resolution),)

    def grids(batch: int) -> Tensors:
        return (_numbers(batch, side * side, size, "codes").view(batch, side, side),)

    return {
        "encoder": Exportable(
            Encoding(tokenizer).eval(),
            inputs=("images",),
            outputs=("codes",),
            example=pictures,
            description=describe(meta, input=images, output=codes),
        ),
        "decoder": Exportable(
            Decoding(tokenizer).eval(),
            inputs=("codes",),
            outputs=("images",),
            example=grids,
            description=describe(meta, input=codes, output=images, pixels=PIXELS),
        ),
    }


def of_composer(composer: Any, meta: Mapping[str, Any]) -> dict[str, Exportable]:
    """Return `prior`, `encoder` and `decoder` to export; arguments as of `of_tokenizer`."""
    config = composer.prior.config
    (h, w), tokens, size = config.grid, config.condition_length, config.codebook_size

    def sequences(batch: int) -> Tensors:
        condition = _numbers(batch, tokens, config.condition_size, "condition")
        return condition, _numbers(batch, h * w, size, "codes").view(batch, h, w)

    prior = Exportable(
        composer.prior.eval(),
        inputs=("condition", "codes"),
        outputs=("logits",),
        example=sequences,
        description=describe(
            meta,
            input=f"condition (N, {tokens}) int64: {config.condition}, 0 to {config.condition_size - 1}; "
            f"codes (N, {h}, {w}) int64: 0 to {size - 1}",
            output=f"logits (N, {h * w}, {size}) float32: of every code, in the order `{config.order}`, given the "
            "condition and the codes before it",
        ),
    )
    return {"prior": prior} | of_tokenizer(composer.tokenizer, meta, composer.config.resolution)


def _numbers(seed: int, count: int, size: int, stream: str) -> Tensor:
    """Return int64 (seed, count) from 0 to size - 1: as many rows as the seed says."""
    drawn = torch.from_numpy(hashed_uniform(seed, torch.arange(seed).numpy(), count, stream))
    return (drawn * size).long().clamp(max=size - 1)
