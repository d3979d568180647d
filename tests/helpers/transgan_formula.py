"""Weights and inputs that are formulas, so that known answers need no weights file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def formula_tensor(shape: Sequence[int], number: int, scale: float = 1.0) -> Tensor:
    """Return scale x sin(0.618 i + number) over the elements i in order."""
    count = int(torch.Size(shape).numel())
    place = torch.arange(count, dtype=torch.float64)
    return (torch.sin(0.618 * place + number) * scale).float().reshape(tuple(shape))


def formula_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return a tensor for every name: of the size that linear maps have, around 1 for gains of norms."""
    weights = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        is_gain = ".norm" in f".{name}" and name.endswith("weight")
        inputs = int(torch.Size(shape[1:]).numel()) if len(shape) > 1 else 25
        scale = 0.5 if name.endswith("table") else 1.5 * inputs**-0.5
        weights[name] = formula_tensor(shape, number, scale) + float(is_gain)
    return weights


def formula_noise(shapes: Sequence[tuple[int, ...]], images: int) -> list[Tensor]:
    """Return one (N, *shape) for every shape."""
    return [formula_tensor((images, *shape), 100 + place) for place, shape in enumerate(shapes)]


def summary(x: Tensor) -> dict[str, object]:
    """Describe a tensor by its mean, its deviation and 24 of its values."""
    flat = x.detach().double().flatten()
    chosen = flat[:: max(1, len(flat) // 24)][:24]
    return {"mean": flat.mean().item(), "std": flat.std().item(), "values": chosen.tolist()}
