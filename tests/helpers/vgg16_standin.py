"""A file with random weights of VGG16's convolutions by torchvision's names, as LPIPS reads them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch

WIDTHS = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
NUMBERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def make(path: Path) -> Path:
    tensors = {}
    for number, (inputs, outputs) in zip(NUMBERS, pairwise(WIDTHS), strict=True):
        scale = (2 / inputs / 9) ** 0.5
        tensors[f"features.{number}.weight"] = torch.randn(outputs, inputs, 3, 3) * scale
        tensors[f"features.{number}.bias"] = torch.zeros(outputs)
    torch.save(tensors, path)
    return path
