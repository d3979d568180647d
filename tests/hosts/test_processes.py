"""Processes of one machine, started as a cluster starts them: by variables of the environment."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from gtool.cli import run
from gtool.errors import DeviceError
from gtool.runtime import peers
from gtool.runtime.device import make_compute
from tests.helpers.forked import Process, places
from tests.helpers.runs import wait_for

HOST = socket.gethostname()
GRACE = 2.0  # seconds in place of peers.GRACE


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def two(recipe):
    """Two processes in the middle of a training that would not end by itself."""
    port = free_port()
    processes = []
    for rank in (0, 1):
        arguments = ["train", "transgan", "--recipe", recipe, "--out", "out"]
        arguments += ["--device", "cpu", "--kimg", "20", "--timeout", "40"]
        changes = {"gtool.runtime.peers.GRACE": GRACE, "gtool.runtime.peers.LINGER": 1.0}
        processes.append(Process(arguments, places(rank) | {"MASTER_PORT": str(port)}, changes))
    wait_for(Path("out"), "state-*", processes[0])
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def errors_of(process: Process) -> list[str]:
    _, errors = process.communicate(timeout=60)
    return [line for line in errors.splitlines() if "error" in line.lower()]


def test_a_killed_process_is_named_by_the_other(two):
    first, second = two
    second.kill()
    (line,) = errors_of(first)
    assert first.returncode == 1
    assert line.startswith(
        f"error: lost process 1 on {HOST}: it ended without a word; the last snapshot is kept"
    )


def test_sigterm_ends_a_process_that_waits_for_another(two):
    first, second = two
    second.send_signal(signal.SIGSTOP)
    time.sleep(1)
    first.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    (line,) = errors_of(first)
    assert time.monotonic() - begun - GRACE + peers.GRACE < 30  # when launchers kill
    assert first.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: ended while waiting for other processes; the last snapshot is kept" in line
    second.send_signal(signal.SIGCONT)
    assert errors_of(second) == []  # it has been said
    assert second.returncode == 128 + signal.SIGTERM


@pytest.fixture
def cluster(monkeypatch):
    """Set variables as a cluster does for the second of two processes."""

    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_rank_alone_makes_no_process_silent(cluster, capsys):
    cluster(RANK="1", WORLD_SIZE="2", SLURM_PROCID="1")
    assert run(["paint", "nothing.jpg"]) == 1
    assert run(["train", "transgan", "--resume", "nothing"]) == 1
    assert run(["train", "transgun"]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith("error: nothing.jpg")
    assert second.startswith("error: nothing: no such run folder")
    assert "transgan" in third


def test_rank_alone_makes_no_process_wait_for_others(cluster):
    cluster(RANK="1", WORLD_SIZE="2", LOCAL_RANK="1")
    assert make_compute("cpu", timeout=1).world_size == 1
    cluster(MASTER_ADDR="localhost", MASTER_PORT="29512")
    assert make_compute("cpu").world_size == 1  # of a command that works by itself
    assert os.environ["RANK"] == "1"


def test_each_host_says_what_stops_its_first_process_before_they_meet(cluster, monkeypatch, capsys):
    monkeypatch.setattr(peers, "SAME", 0.1)
    cluster(RANK="2", WORLD_SIZE="4", MASTER_ADDR="elsewhere", LOCAL_RANK="0")
    assert run(["train", "transgan", "--resume", "nothing"]) == 1
    assert capsys.readouterr().err.startswith(f"error: process 2 on {HOST}: nothing: no such run folder")
    cluster(RANK="3", LOCAL_RANK="1")
    assert run(["train", "transgan", "--resume", "nothing"]) == 1
    assert capsys.readouterr().err == ""
    assert run(["paint", "nothing.jpg"]) == 1  # which they do not do together
    assert capsys.readouterr().err.startswith(f"error: process 3 on {HOST}: nothing.jpg")


def test_processes_that_nobody_joins_are_named(recipe):
    """Alone of two: in a process of its own, as torch keeps what it could not start."""
    arguments = ["train", "transgan", "--recipe", recipe, "--timeout", "1", "--device", "cpu"]
    alone = Process(arguments, places(0) | {"MASTER_PORT": str(free_port())})
    _, errors = alone.communicate(timeout=60)
    assert alone.returncode == 1
    assert "the 2 processes did not meet at localhost" in errors.splitlines()[-1]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("device", "fragment"), [("cuda", "a machine with 1 GPU"), ("cuda:0", "is one GPU for 2")]
)
def test_more_processes_than_gpus_are_refused(cluster, monkeypatch, device, fragment):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    cluster(RANK="0", LOCAL_RANK="0", WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="localhost")
    with pytest.raises(DeviceError, match=fragment):
        make_compute(device, timeout=5)
