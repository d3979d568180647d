"""Weights of released GANsformers and inputs that are formulas, so that known answers need no weights file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FILTERS = ("resample_kernel", "grid_pos")  # not weights: the released classes compute them


def chirp(shape: Sequence[int], number: int, scale: float = 1.0) -> Tensor:
    """Return scale x sqrt(2) sin(0.618 i^2 + number) over the elements i in order: no two rows are alike."""
    place = torch.arange(int(torch.Size(shape).numel()), dtype=torch.float64)
    return (torch.sin(0.618 * place.square() + number) * 2**0.5 * scale).float().reshape(tuple(shape))


def formula_weights(shapes: Mapping[str, Sequence[int]], multiplier: float = 0.01) -> dict[str, Tensor]:
    """Return a tensor for every name: of the size that the released classes begin with, no zeros and no ones."""
    weights = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        is_mapped = name.startswith("mapping.") and ".sa" not in name
        scale = 1.0 if len(shape) > 1 else 0.2
        around = float(name.endswith(("affine.bias", "att_weight")))
        weights[name] = chirp(shape, number, scale / multiplier if is_mapped else scale) + around
    return weights


def formula_noise(shapes: Sequence[tuple[int, ...]], images: int) -> list[Tensor]:
    """Return one (N, *shape) for every shape."""
    return [chirp((images, *shape), 100 + place) for place, shape in enumerate(shapes)]
