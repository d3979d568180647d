"""Weights of released GANsformers that are formulas, so that known answers need no weights file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from tests.transgan_formula import formula_tensor

FILTERS = ("resample_kernel", "grid_pos")  # not weights: the released classes compute them


def formula_weights(shapes: Mapping[str, Sequence[int]], multiplier: float = 0.01) -> dict[str, Tensor]:
    """Return a tensor for every name: of the size that the released classes begin with, no zeros and no ones."""
    weights = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        is_mapped = name.startswith("mapping.") and ".sa" not in name
        scale = 1.4 if len(shape) > 1 else 0.3
        around = float(name.endswith(("affine.bias", "att_weight")))
        weights[name] = formula_tensor(shape, number, scale / multiplier if is_mapped else scale) + around
    return weights
