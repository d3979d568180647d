"""A process that meets others and then does one thing: `python -m tests.helpers.peer RANK SIZE TIMEOUT WHAT`.

It needs no torch. Process 0 says in the file `where` how it is reached.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from gtool import console
from gtool.errors import GToolError
from gtool.runtime import peers as module
from gtool.runtime.peers import Peers

module.LINGER = 3.5  # more than SAME, as there


def _announce(text: str) -> None:
    Path("where.new").write_text(text, encoding="utf-8")
    os.replace("where.new", "where")


def block() -> None:
    """Wait in C for ever, deaf to what Python does on a signal: lock a mutex twice."""
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    libc.pthread_mutex_lock(mutex)
    console.result("blocks")
    libc.pthread_mutex_lock(mutex)


def main(rank: int, size: int, timeout: float, what: str) -> int:
    signal.signal(signal.SIGTERM, lambda signum, _frame: sys.exit(128 + signum))  # as the command line has it
    # What a shell starts in the background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    peers = Peers(rank, size, timeout)
    try:
        if rank == 0:
            peers.listen(_announce)
        else:
            while not Path("where").is_file():
                time.sleep(0.02)
            peers.connect("localhost", Path("where").read_text(encoding="utf-8"))
    except GToolError as failed:
        console.error(str(failed))
        return 1
    console.result("met")
    if what == "block":
        block()
    elif what == "save":
        with peers.saving():
            time.sleep(2.5)
            Path("saved").touch()
        block()
    elif what.startswith("fail"):
        text = what.removeprefix("fail ")
        if peers.fail(text, 5):
            console.error(text)
        peers.leave()
        return 5
    elif what.startswith("meet"):
        time.sleep(float(what.removeprefix("meet ")))
        peers.meet()
        peers.meet()
        console.result("met again")
        peers.leave()
    elif what == "leave":
        peers.leave()
    else:
        time.sleep(float(what))
        peers.leave()
    return 0


if __name__ == "__main__":
    os._exit(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
