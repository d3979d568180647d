"""The one place that decides device, precision, processes and random numbers.

Random numbers are functions of what they are for: `make_generator(seed, "step", 12)` gives the same stream in every
process and after every resume, so no generator state is ever stored and nothing depends on the number of processes.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gtool.errors import DeviceError, RecipeError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from accelerate import Accelerator
    from torch import Tensor

PRECISIONS = ("auto", "bf16", "fp32")
LAUNCHER = "GTOOL_LAUNCHER"  # in the environment of processes that we launched: the number of that process
LOOK_SECONDS = 0.1  # that the load of the machine is watched for


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that is a function of the parts alone, the same for ever and everywhere."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def make_generator(*parts: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a torch generator seeded with `derive_seed(*parts)`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


def hashed_uniform(seed: int, indices: np.ndarray, size: int, stream: int | str = 0) -> np.ndarray:
    """Return (N, size) float64 in (0, 1); row i depends on (seed, stream, indices[i]) alone.

    Counter-based (two rounds of the splitmix64 finaliser over index and column), hence the same on every machine and
    for every grouping of the indices.
    """
    import numpy as np

    rows = np.asarray(indices).astype(np.uint64)[:, None]
    columns = np.arange(size, dtype=np.uint64)[None, :]
    with np.errstate(over="ignore"):
        key = _mix(rows + np.uint64(derive_seed(seed, stream)))
        bits = _mix(key + _mix(columns * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)))
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64-bit words that mixes every bit."""
    import numpy as np

    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hashed_normal(seed: int, indices: Tensor, size: int, stream: int | str = 0) -> Tensor:
    """Return (N, size) float32 N(0, 1) on the CPU; row i depends on (seed, stream, indices[i]) alone (Box-Muller)."""
    import numpy as np
    import torch

    uniform = hashed_uniform(seed, indices.cpu().numpy(), size + size % 2, stream)
    radius = np.sqrt(-2.0 * np.log(uniform[:, 0::2]))
    angle = 2.0 * np.pi * uniform[:, 1::2]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :size]
    return torch.from_numpy(normal.astype(np.float32))


def has_fast_bf16(device: torch.device) -> bool:
    """Say whether bf16 matrix products are faster than fp32 here: CUDA with bf16, or a CPU with AMX or AVX512-BF16."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return False


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
        import torch

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
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value], from_process=0)[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        from accelerate.utils import gather_object

        return list(gather_object([value]))

    def wait(self) -> None:
        """Let every process arrive here before any goes on."""
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the process group, so that no process waits for one that has ended."""
        self.accelerator.end_training()

    def describe(self) -> str:
        """Return the device in words: `CPU, 2 threads` or the name of the GPU."""
        import torch

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
    if precision not in PRECISIONS:
        raise RecipeError(f"precision `{precision}` does not exist; use {', '.join(PRECISIONS)}")
    end_with_launcher()
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedType

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
    if precision == "bf16" and chosen.type == "mps":
        raise DeviceError("precision bf16 is not available on mps; use --precision fp32")
    bf16 = precision == "bf16" or (precision == "auto" and has_fast_bf16(chosen))
    if chosen.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    return Compute(accelerator=accelerator, device=chosen, bf16=bf16)


def free_cores(most: int) -> int:
    """Return how many cores nothing else uses at this moment, 1 to `most`; what is niced counts as nothing.

    Threads of one operation wait for the slowest of them. Where one shares its core with another program, all are
    slow: two threads beside one busy program took 20 times as long as one thread (measured, two cores).
    """
    import psutil

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
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # names of malloc.h
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, -1)  # never
        mallopt(top_pad, 1 << 26)


def _choose_device(name: str) -> torch.device:
    import torch

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


def has_gpu() -> bool:
    """Say, without importing torch, whether this machine looks as if torch would find a GPU."""
    import shutil

    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in {"", "-1"}:
        return False
    return (
        os.path.exists("/dev/nvidiactl")
        or os.path.exists("/dev/kfd")
        or shutil.which("nvidia-smi") is not None
    )


def launched_processes() -> int | None:
    """Return the number of processes that a launcher started, or None outside of one."""
    size = os.environ.get("WORLD_SIZE")
    return int(size) if size and size.isdigit() else None


def end_with_launcher() -> None:
    """Let this process end by SIGTERM when the one that launched it is gone, however it went; not on Windows.

    Without it, what was started by a command that is killed would go on, and keep its run folder locked.
    """
    launcher = os.environ.get(LAUNCHER, "")
    if os.name != "posix" or not launcher.isdigit():
        return

    def watch() -> None:
        # The system could send a signal by itself (PR_SET_PDEATHSIG), but it sends one for each of the launcher's
        # threads, and the second stops a training at once that is saving its state.
        while os.getppid() == int(launcher):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def launch(num_processes: int, arguments: list[str]) -> None:
    """Run `python -m gtool` again, once a process, under torch's elastic launcher.

    `accelerate launch --cpu` runs one process whatever it is asked for, so the launcher below it is used directly.

    Raises:
        SystemExit: with the exit status of the process that failed first, which has said why.
    """
    import logging

    from torch.distributed import run as elastic
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes)))
    # The failing process prints its own line; the launcher's account of it would bury that line.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ[LAUNCHER] = str(os.getpid())
    launcher = ["--standalone", "--nproc-per-node", str(num_processes), "-m", "gtool"]
    parsed = elastic.parse_args(launcher)  # type: ignore[no-untyped-call]
    parsed.training_script_args = (
        arguments  # not through its parser, which takes our --num for its --numa-binding
    )
    try:
        elastic.run(parsed)  # type: ignore[no-untyped-call]
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        raise SystemExit(first.exitcode if first.exitcode > 0 else 128 - first.exitcode) from None
    finally:
        del os.environ[LAUNCHER]
