"""Full fp32 for the length of a block: a metric must not change with the precision that training chose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_fp32() -> Iterator[None]:
    """Switch TF32 and autocast off inside; on a CPU this changes nothing unless autocast is on.

    TF32 keeps 10 bits of a product: the same images would score differently on another device.
    """
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with (
            torch.autocast(kind, enabled=False),
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        matmul.allow_tf32 = before
