"""Features of DINOv2 (ViT-S/14, B/14, L/14), whose Frechet distance is FD-DINOv2; needs the extra `gtool[features]`.

Oquab et al. 2023 (DINOv2: Learning Robust Visual Features without Supervision); the network is that of transformers,
the feature its normalised class token, for pictures of 224 px. They are resized as by clean-fid, Pillow's bicubic
without rounding, which is what dgm-eval's `--clean_resize` does (Stein et al. 2023).

The positions that the network learned, of a grid of 37 cells a side, are brought to 16 as the authors' repository does
for whoever loads the network from there, dgm-eval and torch-fidelity: by a factor of 16.1 / 37, a tenth of a cell more
than transformers takes. They are brought there once, as all pictures have one size.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.errors import GToolError
from gtool.metrics.features.clip import EXTRA, EncoderExtractor, load_encoder
from gtool.metrics.features.resize import resize
from gtool.metrics.images import in_batches

PATCH, CELLS = 14, 16  # pixels of a patch, patches of a side
SHAPES = {"vit-s-14": (384, 12), "vit-b-14": (768, 12), "vit-l-14": (1024, 24)}  # width, layers
POSITIONS = "embeddings.position_embeddings"
RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


class Dinov2Extractor(EncoderExtractor):
    """From images to DINOv2's features."""

    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    width, feature = "hidden_size", "pooler_output"

    def resized(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        return torch.cat([resize(batch, side=CELLS * PATCH) for batch in in_batches(images)])


def load_dinov2(path: Path, size: str = "vit-b-14", device: torch.device | str = "cpu") -> Any:
    """Read a file with Hugging Face's names (model.safetensors, pytorch_model.bin).

    Raises:
        GToolError: transformers is not installed.
        CheckpointError: another file.
    """
    try:
        from transformers import Dinov2Config, Dinov2Model
    except ImportError:
        raise GToolError(f"FD-DINOv2 needs {EXTRA}") from None
    width, layers = SHAPES[size]
    config = Dinov2Config(
        image_size=CELLS * PATCH,
        patch_size=PATCH,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
    )
    title = f"DINOv2's {size} (--dinov2)"
    return load_encoder(path, title, lambda: Dinov2Model(config), _as_built).to(device)


def _as_built(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors with the positions of 16 x 16 cells, and under the names of transformers 5 too."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        for old, new in RENAMED.items():
            if old in name:
                found[name.replace(old, new)] = tensor
    positions = tensors.get(POSITIONS)
    if not isinstance(positions, Tensor) or positions.ndim != 3:
        return found  # refused for that
    own, grid = positions[:, :1].float(), positions[:, 1:].float()
    side = round(grid.shape[1] ** 0.5)
    if side**2 == grid.shape[1] and side > CELLS:
        maps = grid.view(1, side, side, -1).permute(0, 3, 1, 2)
        factor = (CELLS + 0.1) / side
        maps = F.interpolate(maps, scale_factor=(factor, factor), mode="bicubic")
        found[POSITIONS] = torch.cat([own, maps.flatten(2).transpose(1, 2)], 1)
    return found
