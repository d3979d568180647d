"""Contestants of a benchmark, each a process of its own, asked for one piece of work in turn.

So each has its own peak memory, and all meet the same load of the machine.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

Times = dict[str, float]  # wall and cpu in seconds, peak_gib of the process so far


def race(module: str, names: Iterable[str], rounds: int) -> dict[str, list[Times]]:
    """Run `python -m module ... --serve NAME` for every name; the first round warms up and comes first.

    The contestants get the arguments that this process got.
    """
    command = [sys.executable, "-m", module, *sys.argv[1:], "--serve"]
    running = {
        name: subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in names
    }
    results: dict[str, list[Times]] = {name: [] for name in running}
    for _ in range(rounds + 1):
        for name, process in running.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            results[name].append(json.loads(process.stdout.readline()))
    for process in running.values():
        process.communicate()
    return results


def serve(work: Callable[[], None]) -> None:
    """Do the work once for every line of input and answer with its time and the peak memory so far."""
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(times | {"peak_gib": peak}), flush=True)
