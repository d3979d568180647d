"""Released Paint Transformer checkpoints -> our names.

Read for Huage001/PaintTransformer (inference/network.py, train/models/networks.py), whose names we keep. A training
checkpoint may carry a prefix of the wrapper for several GPUs, or the network under a key of its own.
"""

from collections.abc import Mapping

from torch import Tensor

from gtool.errors import CheckpointError
from gtool.models.paint_transformer.config import PaintTransformerConfig

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
