"""How many cores of the machine other programs leave."""

import time

import psutil

LOOK_SECONDS = 0.1  # at least, that a look at the load of the machine goes back


class Load:
    """What other programs take of the cores, seen since the last look; what is niced counts as nothing.

    Threads of one operation wait for the slowest of them. Where one shares its core with another program, all are
    slow: two threads beside one busy program took 20 times as long as one thread (measured, two cores).
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._times()
        self._taken = 0.0

    def free_cores(self, most: int) -> int:
        """Return how many cores nothing else uses, 1 to `most`."""
        now = self._times()
        seconds, used, own = (new - old for new, old in zip(now, self._before, strict=True))
        if seconds >= LOOK_SECONDS:
            self._before = now
            self._taken = max(0.0, used - own) / seconds
        return max(1, min(most, round((psutil.cpu_count() or 1) - self._taken)))

    def _times(self) -> tuple[float, float, float]:
        """Seconds by the clock, seconds that cores were used by programs that are not niced, and our part of those."""
        times, own = psutil.cpu_times(), self._process.cpu_times()
        mine = own.user + own.system if self._process.nice() <= 0 else 0.0
        used = sum(times) - sum(
            getattr(times, kind, 0.0) for kind in ("idle", "iowait", "nice", "guest", "guest_nice")
        )
        return time.monotonic(), used, mine
