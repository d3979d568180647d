"""Processes of `python -m gtool`, or another module: forks of one that has imported torch and has run nothing yet."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import gtool

IMPORTED = ["gtool.train.run", "gtool.train.gan", "gtool.train.strokes", "gtool.eval.run"]
IMPORTED += [
    "torch._dynamo",
    "torch.distributed.run",
    "matplotlib.figure",
    "scipy.optimize",
]  # late ones of those


@functools.cache
def _context() -> ForkServerContext:
    """Start the process whose forks all others are; once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(gtool.__file__).parents[1])
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context


def _become(
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    outputs: list[str],
    changes: Mapping[str, Any],
    module: str,
) -> None:
    """Be `python -m MODULE ARGUMENTS`, started in a folder and an environment, with files for stdout and stderr."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, name in zip((sys.stdout, sys.stderr), outputs, strict=True):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), stream.fileno())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, value in changes.items():
        changed, _, attribute = name.rpartition(".")
        setattr(importlib.import_module(changed), attribute, value)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def places(rank: int, world_size: int = 2) -> dict[str, str]:
    """Return the environment of one of several processes on this machine, as a launcher sets it."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    return os.environ | {name: str(number) for name, number in numbers.items()} | {"MASTER_ADDR": "localhost"}


class Process:
    """`python -m MODULE ARGUMENTS`; what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str] | None = None,
        changes: Mapping[str, Any] | None = None,
        module: str = "gtool",
    ) -> None:
        """changes: values of this process alone, by their full names, as `gtool.runtime.peers.GRACE`."""
        self._said: list[str] = []
        self._files = [tempfile.NamedTemporaryFile("r", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
        names = [file.name for file in self._files]
        given = (arguments, os.getcwd(), environment or dict(os.environ), names, changes or {}, module)
        self._process = _context().Process(target=_become, args=given)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, signum: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signum)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end, and return what was written to stdout and stderr."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("gtool", timeout or 0)
        for file in self._files:
            if not file.closed:
                self._said.append(file.read())
                file.close()
        out, err = self._said
        return out, err
