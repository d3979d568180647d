"""Processes that know of each other: who is gone is named, and nobody waits for ever. Nothing here needs torch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gtool

pytestmark = pytest.mark.skipif(os.name != "posix", reason="stops and kills processes by signals")
HOST = socket.gethostname()


@pytest.fixture
def start(monkeypatch):
    """Start processes, each with what it does, and return them when they have met; in the end none is left."""
    monkeypatch.setenv("PYTHONPATH", str(Path(gtool.__file__).parents[1]))
    running = []

    def one(rank: int, size: int, what: str, timeout: float) -> subprocess.Popen:
        command = [sys.executable, "-m", "tests.helpers.peer", str(rank), str(size), str(timeout), what]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    def all_of(*whats: str, timeout: float = 20) -> list[subprocess.Popen]:
        Path("where").unlink(missing_ok=True)  # of those before
        processes = [one(rank, len(whats), what, timeout) for rank, what in enumerate(whats)]
        for process in processes:
            assert process.stdout.readline() == "met\n", process.communicate()
        return processes

    all_of.one = one
    yield all_of
    for process in running:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen) -> tuple[int, list[str]]:
    _, errors = process.communicate(timeout=40)
    return process.returncode, errors.splitlines()


def test_a_killed_process_is_named_at_once_by_the_first_on_a_host(start):
    first, second, third = start("block", "block", "block", timeout=60)
    third.kill()
    assert end(first) == (1, [f"error: lost process 2 on {HOST}: it ended without a word"])
    assert end(second) == (1, [])


def test_all_end_when_the_process_that_they_connect_to_is_killed(start):
    first, second, third = start("block", "block", "block", timeout=60)
    first.kill()
    assert end(second) == (1, [f"error: lost process 0 on {HOST}: it ended without a word"])
    assert end(third) == (1, [])


def test_a_silent_process_is_lost_after_the_timeout(start):
    first, second = start("block", "block", timeout=2)
    begun = time.monotonic()
    second.send_signal(signal.SIGSTOP)
    assert end(first) == (1, [f"error: lost process 1 on {HOST}: silent for 2 s"])
    assert 1 < time.monotonic() - begun < 20


def test_a_process_is_waited_for_as_long_as_it_says_that_it_is_there(start):
    processes = start("meet 0", "meet 4", "meet 0", timeout=2)
    assert [(process.communicate(timeout=40), process.returncode) for process in processes] == [
        (("met again\n", ""), 0)
    ] * 3


@pytest.mark.parametrize("gone", [0, 1])
def test_a_process_that_is_lost_is_waited_for_no_longer(start, gone):
    processes = start("meet 0" if gone else "meet 60", "meet 60" if gone else "meet 0", timeout=60)
    processes[gone].kill()
    assert end(processes[1 - gone]) == (1, [f"error: lost process {gone} on {HOST}: it ended without a word"])


def test_what_is_being_saved_is_saved_before_a_loss_ends_all(start):
    first, second = start("save", "block", timeout=60)
    second.kill()
    status, _ = end(first)
    assert (status, Path("saved").exists()) == (1, True)


def test_a_failure_of_one_ends_the_others_with_its_status(start):
    first, second = start("block", "fail no such file")
    assert end(second) == (5, ["error: no such file"])
    assert end(first) == (5, [])  # on the same host, where it has been said


def test_a_failure_that_all_meet_is_said_once(start):
    processes = start("fail no such file", "fail no such file", "fail no such file")
    found = [end(process) for process in processes]
    assert [status for status, _ in found] == [5, 5, 5]
    assert [line for _, lines in found for line in lines] == ["error: no such file"]


def test_who_leaves_in_order_is_not_lost(start):
    assert [end(process) for process in start("4.5", "leave", "1", timeout=2)] == [(0, [])] * 3
    assert [end(process) for process in start("leave", "1")] == [(0, [])] * 2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_that_waits_in_a_library(start, signum):
    """The other is there all the time, so that only the signal can be the reason."""
    first, _ = start("block", "30", timeout=1.5)
    assert first.stdout.readline() == "blocks\n"
    time.sleep(0.3)  # until it does
    first.send_signal(signum)
    status, lines = end(first)
    assert (status, len(lines)) == (128 + signum, 1)
    assert "ended while waiting for other processes" in lines[0]


def test_a_signal_lets_the_others_save(start):
    _, second = start("save", "block", timeout=1)
    time.sleep(0.5)
    second.send_signal(signal.SIGTERM)
    assert end(second)[0] == 128 + signal.SIGTERM
    assert Path("saved").exists()


def test_a_process_that_does_not_come_is_named(start):
    status, lines = end(start.one(0, 3, "leave", 1))
    assert (status, len(lines)) == (1, 1)
    assert "process 1, 2 of 3 did not come within 1 s" in lines[0]


def test_strangers_are_turned_away(start):
    first = start.one(0, 2, "1", 20)
    while not Path("where").is_file():
        time.sleep(0.02)
    for hello in (b"GET / HTTP/1.1\r\n", b'{"token": "guess", "rank": 1, "host": "elsewhere"}\n', b"[]\n"):
        with socket.create_connection(
            ("localhost", json.loads(Path("where").read_text())["port"])
        ) as stranger:
            stranger.sendall(hello)
    second = start.one(1, 2, "1", 20)
    assert [end(first), end(second)] == [(0, [])] * 2
