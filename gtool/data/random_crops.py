"""Square crops of images at random places and sizes: many pictures of one side from few images.

A detail of a photo is as much a photo as the whole of it, and painting looks at both.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def random_crops(images: Any, indices: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Cut a square out of each of these images and shrink it without aliasing: uint8 (P, 3, side, side).

    images: uint8 (N, 3, R, R) with R >= side, an array or what decodes on access; read in the order of indices (P,).
    side: pixels of the pictures; squares have from `side` to R pixels, evenly in their logarithm.
    """
    uniform = torch.rand(len(indices), 3, generator=generator)
    pictures = torch.empty(len(indices), 3, side, side, dtype=torch.uint8)
    image, last = torch.empty(0), -1
    for row, index in enumerate(indices.tolist()):
        if index != last:
            image, last = torch.from_numpy(images[[index]]), index  # (1, 3, R, R)
        room = image.shape[-1]
        size = round(room * (side / room) ** float(uniform[row, 0]))
        top, left = (int((room - size + 1) * float(place)) for place in uniform[row, 1:])
        pictures[row] = shrink(image[..., top : top + size, left : left + size], side)[0]
    return pictures


def shrink(images: Tensor, side: int) -> Tensor:
    """Resize uint8 (N, 3, R, R) to (N, 3, side, side) without aliasing."""
    small = F.interpolate(images.float(), size=side, mode="bilinear", antialias=True, align_corners=False)
    return small.round().clamp(0, 255).to(torch.uint8)
