"""Device and processes of a command: `make_compute` chooses, `Compute` is what everything else asks."""

import ctypes
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from gtool.errors import DeviceError
from gtool.runtime.load import LOOK_SECONDS, Load
from gtool.runtime.peers import Peers
from gtool.runtime.precision import use_bf16, use_deterministic_kernels
from gtool.runtime.processes import end_with_launcher, launched_processes

SHORTEST_WAIT = 60.0  # seconds for what processes exchange, however short the time-out: a machine may be busy
_THREADS = {"all": 0, "used": 0}  # of this process
MOST_SHARES = 4  # side by side: more would wait for Python's lock
Item = TypeVar("Item")
Result = TypeVar("Result")
# What says to accelerate that there are several processes.
_LAUNCHERS = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE"),
    *("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"),
)


@dataclass(frozen=True)
class Compute:
    """Where and how the work runs: built once by `make_compute`, passed to whoever needs it."""

    accelerator: Accelerator
    device: torch.device
    bf16: bool
    peers: Peers | None = None  # the other processes, where there are any
    load: Load = field(default_factory=Load)
    threads: int = 1  # that work on the shares of a batch

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

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return what a function makes of every item, in their order; several at a time where there are threads.

        Threads of one operation wait for the slowest of them, thousands of times in a step; where one shares its core
        with another program, all do (two threads: 9 times slower; measured). Shares of a batch meet once. The results
        are those of one thread, however many work.
        """
        if self.threads == 1 or len(items) == 1:
            with use_threads(self.threads) if self.threads > 1 else nullcontext():
                return [function(item) for item in items]
        side_by_side = min(len(items), self.threads, MOST_SHARES)
        each = self.threads // side_by_side
        workers = _workers(side_by_side, each)
        results: list[Result] = []
        while len(results) < len(items):
            at_once = max(1, min(side_by_side, self.load.free_cores(self.threads) // each))
            results += workers.map(function, items[len(results) :][:at_once])
        return results

    def follow_load(self) -> None:
        """Give operations as many threads as other programs leave cores, unless the user has named a number."""
        if self.threads > 1 and "OMP_NUM_THREADS" not in os.environ:
            _THREADS["used"] = self.load.free_cores(self.threads)
            torch.set_num_threads(_THREADS["used"])

    def shares(self, images: int, group: int = 1) -> int:
        """Return in how many equal shares images are worked on side by side; none cuts through a group of images."""
        most = min(MOST_SHARES, self.threads)
        return next(count for count in range(most, 0, -1) if count == 1 or images % (count * group) == 0)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of a detached tensor over all processes."""
        if self.world_size == 1:
            return values
        return self.accelerator.reduce(values, reduction="mean")

    def largest(self, values: list[float]) -> list[float]:
        """Return the largest number of all processes at each place; the CPUs exchange them, and wait for no GPU."""
        if self.world_size == 1:
            return values
        numbers = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return [float(number) for number in numbers]

    def share(self, value: Any) -> Any:
        """Return the main process's value in every process."""
        if self.world_size == 1:
            return value
        self.meet()
        return broadcast_object_list([value], from_process=0)[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        self.meet()
        return list(gather_object([value]))

    def agree(self, facts: Mapping[str, str]) -> None:
        """Find out whether every process has the same facts, by what each is about.

        Raises:
            DeviceError: one has another than the main process; named with its host.
        """
        if self.peers is None:
            return
        first, *others = self.gather(dict(facts))
        for rank, other in enumerate(others, 1):
            for name in first:
                if other.get(name) != first[name]:
                    here, there = self.peers.name(0), self.peers.name(rank)
                    raise DeviceError(
                        f"{there} differs in {name}: {other.get(name)} there, {first[name]} in {here}; give all hosts "
                        "the same command and the same files, best in a folder that all of them see"
                    )

    def advise(self, text: str) -> None:
        """Say what can be done in the line that names a lost process, from here on."""
        if self.peers is not None:
            self.peers.advice = text

    def saving(self) -> AbstractContextManager[None]:
        """Let the loss of another process, or its end, wait for what this one saves."""
        return nullcontext() if self.peers is None else self.peers.saving()

    def meet(self) -> None:
        """Let every process arrive here before any goes on, however long one works before it does."""
        if self.peers is not None:
            self.peers.meet()

    def close(self) -> None:
        """Leave the process group, so that no process waits for one that has ended."""
        self.accelerator.end_training()

    def describe(self) -> str:
        """Return the device in words: `CPU, 2 threads` or the name of the GPU."""
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        else:
            threads = self.threads
            name = f"{self.device.type.upper()}, {threads} thread{'s' if threads > 1 else ''}"
        return name if self.world_size == 1 else f"{self.world_size} x ({name})"


def make_compute(
    device: str = "auto",
    precision: str = "auto",
    *,
    num_processes: int | None = None,
    timeout: float | None = None,
    deterministic: bool = False,
) -> Compute:
    """Choose device and precision and join the other processes when a launcher started some.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `auto` (bf16 where it is fast), `bf16`, `fp32`.
        num_processes: how many processes the user asked for; checked against what runs.
        timeout: seconds after which a silent process is taken for lost; None: this one works by itself, whatever the
            environment says.
        deterministic: on a GPU, the same bits each time.

    Raises:
        RecipeError: the precision does not exist.
        DeviceError: the device does not exist, the number of processes is another, or they do not meet.
    """
    end_with_launcher()
    running = launched_processes() or 1 if timeout is not None else 1
    if num_processes is not None and running != num_processes:
        raise DeviceError(
            f"{num_processes} processes were asked for and {running} are running; "
            "start with --num-processes or torchrun, not with a launcher of one process"
        )
    load = Load()
    chosen = _choose_device(device)
    if running > 1 and chosen.type == "cuda":
        require_gpus(chosen, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    threads = 1
    if chosen.type == "cpu":
        _keep_freed_memory()
        threads = _all_threads() if running == 1 else 1
    if chosen.index is not None and chosen.type == "cuda":
        torch.cuda.set_device(chosen)  # what asks for `cuda` alone gets this one
    peers = _join(chosen, timeout) if timeout is not None and running > 1 else None
    accelerator = _accelerator(chosen, alone=peers is None and not dist.is_initialized())
    if accelerator.device.type == chosen.type and chosen.index is None:
        chosen = accelerator.device
    bf16 = use_bf16(precision, chosen)
    if chosen.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        if deterministic:
            use_deterministic_kernels()
    compute = Compute(accelerator, chosen, bf16, peers, load, threads)
    if threads > 1:
        time.sleep(LOOK_SECONDS)
        compute.follow_load()
    return compute


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on a device; a GPU goes on working meanwhile, and so does whoever sends."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def require_gpus(device: torch.device, processes: int) -> None:
    """Refuse more processes on this machine than it has GPUs: NCCL wants one for each.

    Raises:
        DeviceError: there are fewer, or one is named for all.
    """
    there = torch.cuda.device_count()
    if processes > 1 and device.index is not None:
        raise DeviceError(f"device `{device}` is one GPU for {processes} processes; use --device cuda")
    if processes > there:
        raise DeviceError(
            f"{processes} processes on a machine with {there} GPU{'s' if there > 1 else ''}: each needs its own; "
            f"start at most {there}, or use --device cpu"
        )


def _accelerator(device: torch.device, *, alone: bool) -> Accelerator:
    """Make the Accelerator, `alone`: of one process, also where a cluster has set RANK or WORLD_SIZE."""
    hidden = {name: os.environ.pop(name) for name in _LAUNCHERS if name in os.environ} if alone else {}
    try:
        # mixed_precision stays "no": accelerate would wrap every forward, the penalties' double backward included,
        # which must be able to run in fp32. The autocast of Compute is the same torch context.
        # Networks are put where they belong by whoever builds them: accelerate knows nothing of `cuda:1`.
        accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no", device_placement=False)
    finally:
        os.environ.update(hidden)
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise DeviceError(
            f"{accelerator.distributed_type.value} is not supported: several networks are trained together, which "
            "needs plain data parallelism; start with --num-processes or torchrun"
        )
    return accelerator


def _join(device: torch.device, timeout: float) -> Peers:
    """Meet the other processes that a launcher started, and start torch's process group with them."""
    if missing := [name for name in ("LOCAL_RANK", "MASTER_PORT") if name not in os.environ]:
        raise DeviceError(f"RANK, WORLD_SIZE, MASTER_ADDR are set, {missing[0]} is not; start with torchrun")
    rank, size, address = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), os.environ["MASTER_ADDR"]
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    peers = Peers(rank, size, timeout)
    try:
        store, *_ = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
        if rank == 0:
            peers.listen(lambda text: store.set("gtool", text))
        else:
            peers.connect(address, store.get("gtool").decode())
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        wait = timedelta(seconds=max(timeout, SHORTEST_WAIT))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=wait)
    except dist.DistError as bad:
        where = f"{address}:{os.environ['MASTER_PORT']}"
        reason = str(bad).splitlines()[0]
        raise DeviceError(
            f"the {size} processes did not meet at {where} in {timeout:g} s: {reason}"
        ) from None
    return peers


def _all_threads() -> int:
    """Return how many threads torch, or who calls gtool, gives this process, whatever `follow_load` uses of them."""
    if torch.get_num_threads() != _THREADS["used"]:
        _THREADS["all"] = torch.get_num_threads()
    return _THREADS["all"]


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Give the operations of this thread so many threads of their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _workers(count: int, threads: int) -> ThreadPoolExecutor:
    """Workers, each with so many threads for an operation."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(threads,))


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
