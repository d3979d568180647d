"""Generators and normal numbers of torch that are functions of a seed and a position alone."""

import numpy as np
import torch
from torch import Tensor

from gtool.runtime.random import derive_seed, hashed_uniform


def make_generator(*parts: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a torch generator seeded with `derive_seed(*parts)`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


def hashed_normal(seed: int, indices: Tensor, size: int, stream: int | str = 0) -> Tensor:
    """Return (N, size) float32 N(0, 1) on the CPU; row i depends on (seed, stream, indices[i]) alone (Box-Muller)."""
    uniform = hashed_uniform(seed, indices.cpu().numpy(), size + size % 2, stream)
    radius = np.sqrt(-2.0 * np.log(uniform[:, 0::2]))
    angle = 2.0 * np.pi * uniform[:, 1::2]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :size]
    return torch.from_numpy(normal.astype(np.float32))
