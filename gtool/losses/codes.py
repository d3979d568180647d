"""How a codebook is used, over a window of batches: counts, and what they say.

Counts are whole numbers that add up: those of two processes are those of one, and a window that goes on after a resume
is the window. One batch says little: 32 images of 64 codes cannot use more than 2048.
"""

from __future__ import annotations

import torch
from torch import Tensor


def count_codes(codes: Tensor, size: int) -> Tensor:
    """Return how often each of `size` codes is in `codes` (of any shape): (size,) int64."""
    return torch.bincount(codes.detach().flatten(), minlength=size)


def used(counts: Tensor) -> float:
    """Return the share of codes that were seen at all, in [0, 1]."""
    return float((counts > 0).double().mean())


def perplexity(counts: Tensor) -> float:
    """Return exp of the entropy: how many codes, equally frequent, would be as hard to guess; 0 with no counts."""
    total = counts.sum()
    if not total:
        return 0.0
    share = counts[counts > 0].double() / total
    return float(torch.exp(-(share * share.log()).sum()))
