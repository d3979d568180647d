"""Device and processes of a command: `make_compute` chooses, `Compute` is what everything else asks."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from torch import Tensor

from gtool.errors import DeviceError
from gtool.runtime.precision import use_bf16
from gtool.runtime.processes import end_with_launcher

LOOK_SECONDS = 0.1  # that the load of the machine is watched for


@dataclass(frozen=True)
class Compute:
    """Where and how the work runs: built once by `make_compute`, passed to whoever needs it."""

    accelerator: Accelerator
    device: torch.device
    bf16: bool

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def world_size(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    @property
    def precision(self) -> str:
        return "bf16" if self.bf16 else "fp32"

    @contextmanager
    def autocast(self, enabled: bool = True) -> Iterator[None]:
        """Run network forwards in bf16 where the run uses it; `enabled=False` forces fp32 inside."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled and self.bf16):
            yield

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of a detached tensor over all processes."""
        if self.world_size == 1:
            return values
        return self.accelerator.reduce(values, reduction="mean")

    def share(self, value: Any) -> Any:
        """Return the main process's value in every process."""
        if self.world_size == 1:
            return value
        return broadcast_object_list([value], from_process=0)[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        return list(gather_object([value]))

    def wait(self) -> None:
        """Let every process arrive here before any goes on."""
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the process group, so that no process waits for one that has ended."""
        self.accelerator.end_training()

    def describe(self) -> str:
        """Return the device in words: `CPU, 2 threads` or the name of the GPU."""
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        else:
            threads = torch.get_num_threads()
            name = f"{self.device.type.upper()}, {threads} thread{'s' if threads > 1 else ''}"
        return name if self.world_size == 1 else f"{self.world_size} x ({name})"


def make_compute(
    device: str = "auto", precision: str = "auto", *, num_processes: int | None = None
) -> Compute:
    """Choose device and precision and start the process group when a launcher made one.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `auto` (bf16 where it is fast), `bf16`, `fp32`.
        num_processes: how many processes the user asked for; checked against what runs.

    Raises:
        RecipeError: the precision does not exist.
        DeviceError: the device does not exist, or the number of processes is another.
    """
    end_with_launcher()
    chosen = _choose_device(device)
    if chosen.type == "cpu":
        _keep_freed_memory()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(free_cores(torch.get_num_threads()))
    # mixed_precision stays "no": accelerate would wrap every forward, the penalties' double backward included,
    # which must be able to run in fp32. The autocast of Compute is the same torch context, placed by the engine.
    accelerator = Accelerator(cpu=chosen.type == "cpu", mixed_precision="no")
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise DeviceError(
            f"{accelerator.distributed_type.value} is not supported: several networks are trained together, which "
            "needs plain data parallelism; start with --num-processes or torchrun"
        )
    if num_processes is not None and accelerator.num_processes != num_processes:
        raise DeviceError(
            f"{num_processes} processes were asked for and {accelerator.num_processes} are running; "
            "start with --num-processes or torchrun, not with a launcher of one process"
        )
    if accelerator.device.type == chosen.type and chosen.index is None:
        chosen = accelerator.device
    bf16 = use_bf16(precision, chosen)
    if chosen.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    return Compute(accelerator=accelerator, device=chosen, bf16=bf16)


def free_cores(most: int) -> int:
    """Return how many cores nothing else uses at this moment, 1 to `most`; what is niced counts as nothing.

    Threads of one operation wait for the slowest of them. Where one shares its core with another program, all are
    slow: two threads beside one busy program took 20 times as long as one thread (measured, two cores).
    """
    before, start = psutil.cpu_times(), time.monotonic()
    time.sleep(LOOK_SECONDS)
    after, seconds = psutil.cpu_times(), time.monotonic() - start
    unused = sum(getattr(after, kind, 0.0) - getattr(before, kind, 0.0) for kind in ("idle", "nice"))
    return max(1, min(most, round(unused / seconds)))


def _keep_freed_memory() -> None:
    """Let the C library keep what tensors free, where it is glibc; elsewhere nothing happens.

    By default it hands every large block back to the system and asks for it again at the next operation, which then
    has to be filled with zeros: a tenth to a fifth of the CPU time of a training step (measured). Peak memory is 6 %
    higher.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # names of malloc.h
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, -1)  # never
        mallopt(top_pad, 1 << 26)


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"device `{name}` is unknown; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device `{name}`: this machine has no CUDA device; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device `{name}`: this machine has {torch.cuda.device_count()} CUDA device(s)")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device `{name}`: this machine has no Apple GPU; use --device cpu")
    if device.type not in {"cpu", "cuda", "mps"}:
        raise DeviceError(f"device `{name}` is not supported; use cpu, cuda or mps")
    return device
