"""Released Paint Transformer checkpoints -> our names.

Read for Huage001/PaintTransformer (inference/network.py, train/models/networks.py), whose names we keep. A training
checkpoint may carry a prefix of the wrapper for several GPUs, or the network under a key of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gtool.errors import CheckpointError
from gtool.models.paint_transformer.config import PATCH, PaintTransformerConfig

PARTS = (
    "enc_img",
    "enc_canvas",
    "conv",
    "transformer",
    "linear_param",
    "linear_decider",
    "query_pos",
    "row_embed",
    "col_embed",
)


def rename_released(tensors: Mapping[str, Tensor]) -> tuple[PaintTransformerConfig, dict[str, Tensor]]:
    """Return the config and the tensors of a released predictor by our names.

    Raises:
        CheckpointError: the tensors are not those of a predictor.
    """
    parts = {name.partition(".")[0] for name in tensors}
    missing = [name for name in PARTS if name not in parts]
    if missing:
        raise CheckpointError(f"no Paint Transformer predictor: `{missing[0]}` is missing")
    kept = {name: value for name, value in tensors.items() if name.partition(".")[0] in PARTS}
    return PaintTransformerConfig(architecture="released"), kept


def check(network: nn.Module) -> None:
    """Look at a patch.

    Raises:
        CheckpointError: proposals that are not finite.
    """
    patch = torch.linspace(0, 1, 3 * PATCH * PATCH).view(1, 3, PATCH, PATCH)
    with torch.inference_mode():
        shape_params, logits = network.eval()(patch, torch.zeros_like(patch))
    if not bool(shape_params.isfinite().all() and logits.isfinite().all()):
        raise CheckpointError("the predictor proposes values that are not finite; nothing was written")
