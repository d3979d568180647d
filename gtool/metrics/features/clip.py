"""Features of CLIP's image encoders, of ViT-B/32 for CLIP-FID, of ViT-L/14 at 336 px for CMMD: extra `gtool[features]`.

Radford et al. 2021 (Learning Transferable Visual Models From Natural Language Supervision); the networks are those of
transformers, 87.8 M and 304 M parameters. Images are prepared, and features left at their length, as in clean-fid
0.1.35 (clip_features.py), which calls torchvision's Resize and CenterCrop on uint8 pictures: Pillow's bicubic, rounded.

N images, H W pixels.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gtool.errors import CheckpointError, GToolError
from gtool.metrics.features.inception import DTYPES, Dtype, read_tensors
from gtool.runtime.precision import full_fp32

SIZE = 512
LARGE: dict[str, Any] = {
    **{"image_size": 336, "patch_size": 14, "hidden_size": 1024, "intermediate_size": 4096},
    **{"num_hidden_layers": 24, "num_attention_heads": 16, "projection_dim": 768},
}
EXTRA = "transformers: pip install 'gtool[features]'"


class EncoderExtractor:
    """From uint8 images of any size to the features of a network of transformers.

    dtype: of the layers; `bf16` for previews only.
    """

    mode = "clean"
    mean: tuple[float, float, float]  # of pixels in [0, 1], as the network was trained
    deviation: tuple[float, float, float]
    width: str  # what the network's configuration calls the numbers of a feature
    feature: str  # what its output calls the feature

    def __init__(self, network: Any, dtype: Dtype = "fp32") -> None:
        self.network = network.to(DTYPES[dtype])
        self.dtype = dtype
        self.size = int(getattr(network.config, self.width))

    @torch.no_grad()
    @full_fp32()
    def __call__(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Return (N, D) fp32 features on the CPU.

        images: uint8 (N, 3, H, W), or N images (3, H, W) of any sizes.
        """
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.deviation))
        inputs = (self.resized(images).cpu() / 255 - mean) / deviation
        found: Tensor = getattr(
            self.network(inputs.to(self.network.device, self.network.dtype)), self.feature
        )
        return found.float().cpu()

    def resized(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Return grey levels 0 to 255, (N, 3, S, S) fp32, of the side that the network sees."""
        raise NotImplementedError


class ClipExtractor(EncoderExtractor):
    """From images to CLIP's features."""

    mean = (0.48145466, 0.4578275, 0.40821073)
    deviation = (0.26862954, 0.26130258, 0.27577711)
    width, feature = "projection_dim", "image_embeds"

    def resized(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        return torch.stack([to_square(image, self.network.config.image_size) for image in images])


def to_square(image: Tensor, side: int = 224) -> Tensor:
    """Return uint8 (3, H, W) as grey levels 0..255, (3, side, side) fp32: the shorter side resized, then the centre."""
    height, width = image.shape[1:]
    shorter = min(height, width)
    resized = int(side * height / shorter), int(side * width / shorter)  # torchvision rounds down
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().contiguous().numpy())
    pixels = np.asarray(picture.resize(resized[::-1], Image.Resampling.BICUBIC))
    top, left = (round((size - side) / 2) for size in resized)
    return torch.from_numpy(
        pixels[top : top + side, left : left + side].transpose(2, 0, 1).astype(np.float32)
    )


def load_clip(
    path: Path, device: torch.device | str = "cpu", config: Any = None, *, large: bool = False
) -> Any:
    """Read the image encoder of a file with Hugging Face's names (pytorch_model.bin, .safetensors).

    config: a CLIPVisionConfig; that of ViT-B/32, or of ViT-L/14 at 336 px, when left out.

    Raises:
        GToolError: transformers is not installed.
        CheckpointError: another file.
    """
    try:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    except ImportError:
        raise GToolError(f"{'CMMD' if large else 'CLIP-FID'} needs {EXTRA}") from None
    config = config or (CLIPVisionConfig(**LARGE) if large else CLIPVisionConfig(projection_dim=SIZE))
    title = "CLIP's ViT-L/14 of 336 px" if large else "CLIP's ViT-B/32"
    return load_encoder(path, title, lambda: CLIPVisionModelWithProjection(config)).to(device)


def load_encoder(path: Path, title: str, build: Callable[[], Any], change: Callable[..., Any] = dict) -> Any:
    """Return the network of transformers that `build` makes with the tensors of a file, which need to fit by name.

    change: of the tensors that were read, before they are compared.
    """
    tensors = change(read_tensors(path))
    with torch.random.fork_rng(devices=[]):
        network = build()
    for name, own in network.state_dict().items():
        given = tensors.get(name)
        if not isinstance(given, Tensor) or given.shape != own.shape or not bool(given.isfinite().all()):
            raise CheckpointError(
                f"{path}: not {title} in Hugging Face's layout: `{name}` is missing or wrong"
            )
        own.copy_(given.detach())
    return network.train(False).requires_grad_(False)
