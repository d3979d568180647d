"""Where a person looks in an image: at its subject, a head or a flower, before the sky and the leaves around it."""

from __future__ import annotations

import torch
from torch import Tensor

from gtool.losses.efficientnet import efficientnet_lite0
from gtool.nn.resample import resample
from gtool.runtime.device import use_threads

SIDE = 256  # pixels of the longer side of what the network sees
SHARPNESS = 2  # power of the deviation
STRONGEST = 3.0


@torch.no_grad()
def saliency(image: Tensor) -> Tensor:
    """Return how much places of an image (3, H, W) in [0, 1] draw the eye: (1, h, w) in [0, 3], 1 on average.

    It is how far the last features of EfficientNet-Lite0, 32 pixels apart, are from their mean over the image.
    """
    _, height, width = image.shape
    scale = SIDE / max(height, width)
    small = resample(
        image[None], (max(1, round(height * scale)), max(1, round(width * scale))), antialias=True
    )
    with use_threads(1):  # convolutions of several threads end in other bits, and strokes would be others
        features = efficientnet_lite0(image.device)(2 * small - 1)[-1][0]  # (C, h, w)
    strength = (features - features.mean(dim=(1, 2), keepdim=True)).norm(dim=0, keepdim=True) ** SHARPNESS
    return (strength / strength.mean().clamp(min=1e-6)).clamp(max=STRONGEST)
