"""The other processes of a command: which of them is gone, which has failed and why, and how all end together.

torch waits for other processes inside of C++, where Python sees neither a signal nor a link that is down. So a thread
of every process talks to the others: process 0 listens, the others connect to it, and each says every second that it
is there. That thread ends its process, with one line that names the host, when

    another is silent for the time-out, or its connection closes without a farewell     status 1
    another says that it has failed, and this one does not fail by itself               the other's status
    SIGTERM or SIGINT came, and the main thread stays in one call for GRACE seconds     128 + the signal

What is being saved at that moment is saved first. Nothing here needs torch.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from gtool import console
from gtool.errors import DeviceError, GToolError
from gtool.runtime.processes import is_distributed

GRACE = 20.0  # seconds; launchers kill what they have asked to end after 30
BEAT = 1.0  # seconds between two signs of life
SAME = 3.0  # seconds in which processes that meet the same error say so
LINGER = 6.0  # seconds that a process has to fail by itself after another did
_OF_COLLECTIVES = re.compile("gloo|nccl|c10d|tcpstore|connection (closed|reset)|timed out waiting", re.I)
_current: Peers | None = None


@dataclass
class _Link:
    """A connection to another process."""

    rank: int
    socket: socket.socket
    heard: float  # when it last said something
    rest: bytes = b""  # the beginning of a message
    is_saving: bool = False
    has_left: bool = False


@dataclass(frozen=True)
class _Failure:
    rank: int
    text: str
    status: int
    when: float


class Peers:
    """All processes of a command as one of them sees them; made before they meet, left when the command ends."""

    def __init__(self, rank: int, size: int, timeout: float) -> None:
        global _current
        self.rank, self.size, self.timeout = rank, size, timeout
        self.host = socket.gethostname()
        self.hosts = [self.host] * size  # by rank, known when all have met
        self.advice = ""  # what to do after a loss, when there is something
        self.is_saving = self._has_failed = self._is_over = False
        self._links: list[_Link] = []
        self._loss: tuple[int, str] | None = None  # which process, and how it was noticed
        self._failures: dict[int, _Failure] = {}
        self._met = threading.Condition()
        self._meetings = [0] * size  # to how many each has come, by rank, of those that this process hears of
        self._signal: int | None = None
        self._place: tuple[int, int] = (0, 0)  # of the main thread
        self._since = 0.0  # that it is there
        # The C handler of a signal writes here at once; that of Python waits for the main thread.
        self._signals, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        _current = self

    # Meeting.

    def listen(self, announce: Callable[[str], None]) -> None:
        """Let all others connect, as process 0; `announce` is given a text that they need for `connect`."""
        token = secrets.token_hex(16)
        with _server() as server:
            announce(json.dumps({"port": server.getsockname()[1], "token": token}))
            missing, deadline = set(range(1, self.size)), time.monotonic() + self.timeout
            links: list[_Link] = []
            while missing:
                server.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    names = ", ".join(map(str, sorted(missing)))
                    text = f"process {names} of {self.size} did not come within {self.timeout:g} s; see what is said"
                    raise DeviceError(f"{text} where it runs, or give it more time by --timeout") from None
                hello = _read_hello(connection)
                if hello and hmac.compare_digest(str(hello["token"]), token) and hello["rank"] in missing:
                    missing.remove(hello["rank"])
                    self.hosts[hello["rank"]] = str(hello["host"])
                    links.append(_Link(hello["rank"], connection, time.monotonic()))
        for link in links:
            link.socket.sendall(json.dumps(self.hosts).encode() + b"\n")
        self._begin(links)

    def connect(self, address: str, announced: str) -> None:
        """Connect to process 0, and wait until all others have.

        Raises:
            DeviceError: it cannot be reached, or not all came in time.
        """
        where = json.loads(announced)
        try:
            connection = socket.create_connection((address, where["port"]), self.timeout)
            hello = {"token": where["token"], "rank": self.rank, "host": self.host}
            connection.sendall(json.dumps(hello).encode() + b"\n")
            connection.settimeout(self.timeout + SAME)
            self.hosts = json.loads(_read_line(connection))
        except (OSError, ValueError) as bad:
            reason = getattr(bad, "strerror", None) or "not all processes came in time"
            text = f"process 0 at {address}:{where['port']}: {reason}"
            raise DeviceError(f"{text}; is a firewall between {self.host} and it?") from None
        self._begin([_Link(0, connection, time.monotonic())])

    def _begin(self, links: list[_Link]) -> None:
        for link in links:
            link.socket.setblocking(False)
            link.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.heard = time.monotonic()
        self._links = links

    # What the main thread says.

    def name(self, rank: int) -> str:
        """Return a process in words."""
        return f"process {rank} on {self.hosts[rank]}"

    def meet(self) -> None:
        """Wait until all processes are here, as long as they say that they are alive.

        What they exchange then finds all of them, so that a short time-out tells when their connection is broken.
        """
        number = self._meetings[self.rank] + 1
        self._arrive(self.rank, number)
        if self.rank:
            self._send({"here": [self.rank, number]})
        waited_for = range(self.size) if self.rank == 0 else (0,)
        with self._met:  # without a time-out: that a signal finds it waiting is seen by the place in the code
            while any(self._meetings[rank] < number for rank in waited_for):
                self._met.wait()
        if self.rank == 0:
            self._send({"here": [0, number]})

    def _arrive(self, rank: int, number: int) -> None:
        with self._met:
            self._meetings[rank] = number
            self._met.notify_all()

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Let nothing that happens to others end this process meanwhile."""
        self.is_saving = True
        self._send({"beat": True})
        try:
            yield
        finally:
            self.is_saving = False

    def fail(self, text: str, status: int) -> bool:
        """Tell the others why this process ends; return whether it is the one on its host to say so."""
        self._has_failed = True
        self._send({"failed": [self.rank, text, status]})
        deadline = time.monotonic() + SAME
        while not self._is_first_here() and time.monotonic() < deadline:
            before = [one for one in list(self._failures.values()) if one.rank < self.rank]
            if any(one.text == text and self.hosts[one.rank] == self.host for one in before):
                return False
            time.sleep(0.02)
        return True

    def leave(self) -> None:
        """Say farewell, so that nobody takes this process for lost, and close the connections."""
        global _current
        _current, self._is_over = None, True
        signal.set_wakeup_fd(-1)
        self._wakeup.send(b"\0")
        self._thread.join()
        if not self._has_failed:
            self._send({"left": self.rank})
        self._hang_up()
        self._signals.close()
        self._wakeup.close()

    # The thread.

    def _watch(self) -> None:
        next_beat = 0.0
        while not self._is_over:
            now = time.monotonic()
            if now >= next_beat:
                self._send({"beat": self.is_saving})
                next_beat = now + min(BEAT, self.timeout / 4)
            links = {link.socket: link for link in self._links}
            for ready in wait([*links, self._signals], next_beat - now):
                if ready is self._signals:
                    self._hear_signal()
                elif not self._is_over:
                    self._read(links[ready])  # type: ignore[index]
            if not (self._is_over or self._has_failed):
                self._judge(time.monotonic())

    def _hear_signal(self) -> None:
        numbers = set(self._signals.recv(64)) & {signal.SIGTERM, signal.SIGINT}
        if numbers and self._signal is None:
            self._signal, self._since = max(numbers), time.monotonic()

    def _read(self, link: _Link) -> None:
        try:
            data = link.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        link.heard = time.monotonic()
        *lines, link.rest = (link.rest + data).split(b"\n")
        for line in lines:
            self._take(link, json.loads(line))
        if not data:
            self._links = [other for other in self._links if other is not link]
            link.socket.close()
            if not link.has_left and link.rank not in self._failures:
                self._lose(link.rank, "it ended without a word")

    def _take(self, link: _Link, message: dict[str, Any]) -> None:
        ((kind, value),) = message.items()
        if kind == "beat":
            link.is_saving = bool(value)
        elif kind == "left":
            link.has_left = True
        elif kind == "here":
            self._arrive(*value)
        elif kind == "failed":
            rank, text, status = value
            self._failures[rank] = _Failure(rank, text, status, time.monotonic())
            if self.rank == 0:
                self._send(message)
        elif kind == "lost":
            self._loss = self._loss or (value[0], value[1])

    def _lose(self, rank: int, how: str) -> None:
        if self._loss is None:
            self._loss = (rank, how)
            self._send({"lost": [rank, how]})

    def _judge(self, now: float) -> None:
        """End this process where there is a reason to, and nothing is being saved."""
        for link in self._links:
            if not link.has_left and now - link.heard > self.timeout:
                self._lose(link.rank, f"silent for {self.timeout:g} s")
        if self.is_saving:
            return
        if self._loss is not None:
            rank, how = self._loss
            text = f"lost {self.name(rank)}: {how}{self.advice}"
            self._end(1, text, is_said=self._is_first_here(gone=rank))
        first = min(self._failures.values(), key=lambda failure: failure.when, default=None)
        if first is not None and now - first.when > LINGER:
            is_elsewhere = self.hosts[first.rank] != self.host
            text = f"{self.name(first.rank)} stopped: {first.text}"
            self._end(first.status, text, is_said=is_elsewhere and self._is_first_here())
        if self._signal is not None and not any(link.is_saving for link in self._links):
            self._end_if_stuck(self._signal, now)

    def _is_first_here(self, gone: int | None = None) -> bool:
        """Say whether no process before this one, but the one that is gone, is on its host."""
        return not any(self.hosts[rank] == self.host for rank in range(self.rank) if rank != gone)

    def _end_if_stuck(self, signum: int, now: float) -> None:
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        place = (id(frame), frame.f_lasti if frame else 0)
        if place != self._place:
            self._place, self._since = place, now
        if now - self._since > min(GRACE, self.timeout):
            name = signal.Signals(signum).name
            text = f"{name}: ended while waiting for other processes{self.advice}"
            self._has_failed = True
            self._send({"failed": [self.rank, f"ended by {name}", 128 + signum]})
            self._end(128 + signum, text, is_said=True)

    def _end(self, status: int, text: str, *, is_said: bool) -> None:
        if is_said:
            console.error(here() + text)
        self._hang_up()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        for link in list(self._links):
            with suppress(OSError):  # who cannot be reached is found out by silence
                link.socket.send(line)

    def _hang_up(self) -> None:
        """Close the connections so that what was said last arrives: what is unread here would cut it off."""
        links, deadline = self._links, time.monotonic() + BEAT
        self._links = []
        for link in links:
            with suppress(OSError):
                link.socket.shutdown(socket.SHUT_WR)
        for link in links:
            with suppress(OSError):
                link.socket.settimeout(max(0.01, deadline - time.monotonic()))
                while link.socket.recv(1 << 16):
                    link.socket.settimeout(max(0.01, deadline - time.monotonic()))
            link.socket.close()


def _server() -> socket.socket:
    """Listen on all addresses of this host: which one the others know it by is not known here."""
    if socket.has_dualstack_ipv6():
        with suppress(OSError):  # switched off in the kernel
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < 1 << 20:
        if not (byte := connection.recv(1)):
            raise ConnectionError
        line += byte
    return line


def _read_hello(connection: socket.socket) -> dict[str, Any] | None:
    """Return what one who connects says of itself; None where it is nobody of ours."""
    connection.settimeout(5.0)
    try:
        hello = json.loads(_read_line(connection))
        return {"token": hello["token"], "rank": int(hello["rank"]), "host": hello["host"]}
    except (OSError, ValueError, KeyError, TypeError):
        connection.close()
        return None


# Of the process as a whole, for those who catch its errors.


def leave() -> None:
    """Say farewell to the other processes, where there are any."""
    if _current is not None:
        _current.leave()


def explain(failed: Exception) -> Exception:
    """Return an error of torch's collectives as one of ours; where a process was lost, this one ends in here."""
    text = str(failed)
    if _current is None or not isinstance(failed, RuntimeError) or not _OF_COLLECTIVES.search(text):
        return failed
    time.sleep(_current.timeout + LINGER)  # the thread ends this process as soon as it knows who is gone
    said = re.sub(r"^\[.*?\] ", "", text.splitlines()[0])
    return GToolError(
        f"what the processes exchange is lost, though all say that they are there: {said}; see the network that torch "
        f"takes (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME){_current.advice}"
    )


def says(text: str, status: int, *, is_shared: bool) -> bool:
    """Tell the others that this process ends by an error; return whether it is the one on its host to say so.

    is_shared: whether all processes of the launcher work on this command, and meet such an error.
    """
    if _current is not None:
        return _current.fail(text, status)
    if not (is_shared and is_distributed()) or os.environ.get("LOCAL_RANK", "0") == "0":
        return True
    time.sleep(SAME)  # the launcher would end the first process as soon as this one has ended
    return False


def here() -> str:
    """Return which process this is, as a beginning of its errors; nothing for the only or the first one."""
    rank = os.environ.get("RANK", "0")
    return f"process {rank} on {socket.gethostname()}: " if is_distributed() and rank != "0" else ""
