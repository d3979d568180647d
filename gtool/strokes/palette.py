"""Few colours to paint with: chosen for a picture, or given."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

KMEANS_STEPS = 8  # after the median cut

# Linear sRGB to OKLab (Ottosson 2020), in which distances are about as people see them: to cones, and from their roots.
_TO_CONES = (
    *((0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566)),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    *((0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099)),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def choose_palette(pixels: np.ndarray, count: int) -> Tensor:
    """Return at most `count` colours (K, 3) in [0, 1] that come near to those of a picture uint8 (H, W, 3)."""
    reduced = Image.fromarray(pixels).quantize(count, Image.Quantize.MEDIANCUT, kmeans=KMEANS_STEPS)
    found = torch.tensor(reduced.getpalette()).view(-1, 3)
    used = reduced.getcolors() or []
    return found[: len(used)].float() / 255


def nearest_in_palette(colors: Tensor, palette: Tensor) -> Tensor:
    """Return for each colour (N, 3) the one of a palette (K, 3) that people see as nearest."""
    palette = palette.to(colors)
    return palette[torch.cdist(oklab(colors), oklab(palette)).argmin(dim=1)]


def oklab(colors: Tensor) -> Tensor:
    """sRGB (N, 3) in [0, 1] -> OKLab (N, 3)."""
    linear = torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    cones = (linear @ colors.new_tensor(_TO_CONES).T).clamp(min=0) ** (1 / 3)
    return cones @ colors.new_tensor(_TO_LAB).T
