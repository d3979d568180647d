"""Several processes: how they are launched, and how they end together. Asks nothing of torch but its launcher."""

import logging
import os
import shutil
import signal
import threading
import time

LAUNCHER = "GTOOL_LAUNCHER"  # in the environment of processes that we launched: the number of that process


def has_gpu() -> bool:
    """Say, without importing torch, whether this machine looks as if torch would find a GPU."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in {"", "-1"}:
        return False
    return (
        os.path.exists("/dev/nvidiactl")
        or os.path.exists("/dev/kfd")
        or shutil.which("nvidia-smi") is not None
    )


def launched_processes() -> int | None:
    """Return the number of processes that a launcher started, or None outside of one.

    Clusters set RANK or WORLD_SIZE alone; a launcher also says where the processes meet.
    """
    size = os.environ.get("WORLD_SIZE", "")
    is_launched = os.environ.get("RANK", "").isdigit() and os.environ.get("MASTER_ADDR")
    return int(size) if is_launched and size.isdigit() else None


def is_distributed() -> bool:
    """Say whether a launcher started several processes, of which this is one."""
    return (launched_processes() or 1) > 1


def repeats_another() -> bool:
    """Say whether, before processes meet, another does the same: our launcher has done it, or the first one does."""
    return LAUNCHER in os.environ or os.environ.get("RANK", "0") != "0"


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
        SystemExit: with the exit status of the process that failed first, which has said why, or 128 + the signal
            that came, which the launcher passes on.
    """
    from torch.distributed import run as elastic
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes)))
    # The failing process prints its own line; the launcher's account of it would bury that line.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ[LAUNCHER] = str(os.getpid())
    launcher = ["--standalone", "--nproc-per-node", str(num_processes), "-m", "gtool"]
    parsed = elastic.parse_args(launcher)  # type: ignore[no-untyped-call]
    # Not through its parser, which takes our --num for its --numa-binding.
    parsed.training_script_args = arguments
    try:
        elastic.run(parsed)  # type: ignore[no-untyped-call]
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        raise SystemExit(first.exitcode if first.exitcode > 0 else 128 - first.exitcode) from None
    except SignalException as stopped:
        raise SystemExit(128 + stopped.sigval) from None
    finally:
        del os.environ[LAUNCHER]
