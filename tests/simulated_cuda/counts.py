"""What the simulated device counts, and what is known of CUDA's operations."""

from __future__ import annotations

import math
import sys
from collections import Counter
from typing import Any

MEMORY = 80 * 2**30
SHARED_MEMORY = 48 * 2**10  # bytes for a block of threads
BLOCK = 512  # bytes that allocations are rounded up to


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operations that hand the host a size or a number: it waits for the device.
WAITS = words(
    "_local_scalar_dense nonzero masked_select _unique2 unique_dim unique_consecutive equal bincount is_nonzero "
    "_linalg_eigh"
)
# Operations that add in whatever order comes: where torch.use_deterministic_algorithms is on, the first have another
# kernel, the others are refused.
ORDERED_IF_ASKED = words(
    "index_put_ _index_put_impl_ index_put index_add_ index_add scatter_add_ scatter_add embedding_dense_backward "
    "cumsum cumsum_"
)
NEVER_ORDERED = words(
    "upsample_bilinear2d_backward upsample_bicubic2d_backward _upsample_bilinear2d_aa_backward "
    "_upsample_bicubic2d_aa_backward grid_sampler_2d_backward reflection_pad2d_backward replication_pad2d_backward "
    "max_pool2d_with_indices_backward adaptive_max_pool2d_backward _adaptive_avg_pool2d_backward"
)
EMPTY = words(
    "_unsafe_view empty empty_like empty_strided new_empty new_empty_strided lift_fresh detach set_ resize_"
)


class Counts:
    """What the device did since `reset`, places by the line of gtool that asked for it."""

    def __init__(self) -> None:
        self.live = 0  # bytes allocated now
        self.reset()

    def reset(self) -> None:
        self.kernels = 0
        self.operations: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()  # to the device
        self.copied_bytes = 0
        self.waits: Counter[str] = Counter()
        self.unordered: Counter[str] = Counter()  # operations whose result is not the same each time
        self.peak = self.live


# Operations that take numbers of the CPU only as Python's own.
NUMBERS_TOO = words("cat stack gather embedding index_select mm bmm addmm convolution")
INDEXING = words("index index_put index_put_ _index_put_impl_")

counts = Counts()
options = {"values": True, "root": "gtool"}


def shared_memory(source: Any, target: Any, support: float = 1.0) -> int:
    """Bytes that CUDA's antialiased resize takes of a block's shared memory, for sides (H, W)."""
    high, wide = (
        math.ceil(support * max(1.0, before / after)) * 2 + 1
        for before, after in zip(source, target, strict=True)
    )
    return 4 * (32 * wide + high + 32 * high)


def place() -> str:
    """The line of gtool that runs."""
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if f"/{options['root']}/" in path and "/tests/" not in path and frame.f_code.co_name != "send":
            return f"{path.rpartition('/' + str(options['root']) + '/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "backward pass"
