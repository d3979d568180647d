"""Locks on files, that the system lets go of when their process ends, however it ends; who holds one is in its file."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gtool import console
from gtool.errors import CheckpointError

if TYPE_CHECKING:
    from filelock import BaseFileLock


def take_lock(path: Path, why: str, *, waits: bool = False) -> BaseFileLock:
    """Take a lock; where another process has it, wait and say for whom, or raise CheckpointError.

    why: what another process does that has it.
    """
    from filelock import FileLock, Timeout  # brings asyncio, which only those who write should wait for

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = f"{_holder(path)} {why}"
        if not waits:
            raise CheckpointError(who) from None
        console.notice(f"waiting: {who}")
        lock.acquire()
    path.write_text(f"{os.getpid()} {socket.gethostname()}", encoding="utf-8")
    return lock


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the lock of what is made beside it, or wait for it."""
    lock = take_lock(path, f"makes {path.with_suffix('')}", waits=True)
    try:
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    with suppress(OSError, ValueError):
        number, host = path.read_text(encoding="utf-8").split()
        return f"process {int(number)} on {host}"
    return "another process"
