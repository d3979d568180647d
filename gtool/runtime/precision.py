"""Who decides whether a command computes in bf16: `use_bf16`, once a process, for `Compute.autocast`.

And what has to be full fp32 all the same: metrics, codes, geometry.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import torch

from gtool.errors import DeviceError, RecipeError
from gtool.runtime import PRECISIONS


def use_bf16(precision: str, device: torch.device) -> bool:
    """Return whether network forwards run under bf16 autocast, by `--precision` or `train.precision`.

    `auto` is bf16 where the hardware multiplies faster in it, else fp32. Outside of those forwards everything stays
    fp32: weights, their average, optimizers, losses, second derivatives, codebook distances, geometry, metrics.
    """
    if precision not in PRECISIONS:
        raise RecipeError(f"precision `{precision}` does not exist; use {', '.join(PRECISIONS)}")
    if precision == "bf16" and device.type == "mps":
        raise DeviceError("precision bf16 is not available on mps; use --precision fp32")
    return precision == "bf16" or (precision == "auto" and has_fast_bf16(device))


def has_fast_bf16(device: torch.device) -> bool:
    """Say whether bf16 matrix products are faster than fp32 here: CUDA with bf16, or a CPU with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return has_amx(device) or (device.type == "cpu" and _cpu_has("_is_avx512_bf16_supported"))


def has_amx(device: torch.device) -> bool:
    """Say whether this is a CPU with units for bf16 matrix products, by which plain products beat fused kernels."""
    return device.type == "cpu" and _cpu_has("_is_amx_tile_supported")


@cache
def _cpu_has(probe: str) -> bool:
    return bool(getattr(torch.cpu, probe, lambda: False)())


def use_deterministic_kernels() -> None:
    """Let a GPU add in a fixed order from here on.

    What has no such kernel is written otherwise in gtool (`gtool.nn.resample`, `gtool.train.augment.ada`), or adds
    nothing together as it is used here: gradients at the places of a grid sampling, and of a maximum of 2 x 2.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")


@contextmanager
def without_tf32() -> Iterator[None]:
    """Let fp32 products be fp32 inside, on a GPU too, and cuDNN choose the same kernels each time.

    TF32 keeps 10 bits of a product: the same images would have other scores and other codes on another device.
    """
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before


@contextmanager
def full_fp32() -> Iterator[None]:
    """Switch TF32 and autocast off inside, on every device: what is computed does not depend on a run's precision."""
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    with without_tf32(), ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield
