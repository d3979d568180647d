"""A prior with the tokenizer whose codes it predicts: what a weights file of a prior holds, and what makes images.

Axis letters: N images, P Q their height and width in pixels, H W in codes.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.models.prior.config import PriorPipelineConfig
from gtool.models.prior.network import Prior
from gtool.models.vqgan.network import make_tokenizer
from gtool.nn.ranges import to_pm1, to_uint8
from gtool.runtime.device import Compute

PIXELS_AT_ONCE = 2**18  # that are decoded or encoded


class PriorPipeline(nn.Module):
    """`prior`, `tokenizer` and, where maps are encoded by one, `condition_tokenizer`; a forward is the prior's."""

    def __init__(self, config: PriorPipelineConfig) -> None:
        super().__init__()
        self.config = config
        self.prior = Prior(config.prior)
        self.tokenizer = make_tokenizer(config.tokenizer)
        own = config.condition_tokenizer
        self.condition_tokenizer = None if own is None else make_tokenizer(own)

    def forward(self, condition: Tensor, codes: Tensor) -> Tensor:
        """Return logits (N, L, K) of codes (N, h, w), as `Prior.forward`."""
        return self.prior(condition, codes)

    def example_inputs(self) -> tuple[Tensor, Tensor]:
        """Return the condition and the codes of one image."""
        return self.prior.example_inputs()


def build(config: PriorPipelineConfig) -> tuple[PriorPipeline]:
    """Build all networks from torch's current random stream: one, of two or three parts."""
    return (PriorPipeline(config),)


def encode_images(pipeline: Any, images: Tensor, compute: Compute) -> Tensor:
    """Return the codes int64 (N, H, W), on the CPU, of images uint8 (N, 3, P, Q)."""
    return _in_parts(images, images[0, 0].numel(), compute, lambda x: pipeline.tokenizer.encode(to_pm1(x)))


def decode(pipeline: Any, codes: Tensor, compute: Compute) -> Tensor:
    """Return images uint8 (N, 3, P, Q), on the CPU, of codes (N, H, W)."""
    tokenizer = pipeline.tokenizer
    pixels = codes[0].numel() * tokenizer.down**2
    return _in_parts(codes, pixels, compute, lambda x: to_uint8(tokenizer.decode(x)))


def encode_condition(
    pipeline: Any, values: Tensor, compute: Compute, cell_ids: Callable[[Tensor, tuple[int, int]], Tensor]
) -> Tensor:
    """Return the condition ids int64 (N, H, W) of label maps (N, P, Q), or of depth (N, 1, P, Q) in [-1, 1].

    cell_ids: from values and (H, W) to ids, for priors that have no tokenizer of their conditions
        (gtool.data.loader: `ids_of_maps`, `ids_of_depth`).
    """
    tokenizer, down = pipeline.condition_tokenizer, pipeline.tokenizer.down
    if tokenizer is None:
        return cell_ids(values, (values.shape[-2] // down, values.shape[-1] // down))

    def encode(part: Tensor) -> Tensor:
        if pipeline.config.prior.condition == "segmentation":
            # What has no label is one more than the last, and none of the channels.
            one_hot = F.one_hot(part.long(), tokenizer.image_channels + 1)
            part = one_hot[..., : tokenizer.image_channels].movedim(-1, 1).float()
        return tokenizer.encode(part)

    return _in_parts(values, values.shape[-1] * values.shape[-2], compute, encode)


@torch.no_grad()
def _in_parts(tensor: Tensor, pixels: int, compute: Compute, work: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `work` to parts of one size, of rows of so many pixels; the last is filled up.

    Kernels of other sizes round differently, and an image would depend on how many are decoded with it.
    """
    size = max(1, min(64, PIXELS_AT_ONCE // pixels))
    made = []
    for start in range(0, len(tensor), size):
        rows = torch.arange(start, start + size).clamp(max=len(tensor) - 1)
        with compute.autocast():
            made.append(work(tensor[rows].to(compute.device))[: len(tensor) - start].cpu())
    return torch.cat(made)
