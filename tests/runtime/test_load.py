"""How many cores other programs leave."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace

import psutil
import pytest

from gtool.runtime.load import Load


@pytest.fixture
def machine(monkeypatch):
    """A machine of four cores, as seconds that they were used, and its clock."""
    now = SimpleNamespace(clock=0.0, user=0.0, nice=0.0, idle=0.0, own=0.0)
    monkeypatch.setattr("gtool.runtime.load.time.monotonic", lambda: now.clock)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    kinds = ("user", "nice", "idle")
    made = namedtuple("Times", kinds)
    monkeypatch.setattr(psutil, "cpu_times", lambda: made(*(getattr(now, kind) for kind in kinds)))
    monkeypatch.setattr(psutil.Process, "cpu_times", lambda self: SimpleNamespace(user=now.own, system=0.0))
    monkeypatch.setattr(psutil.Process, "nice", lambda self: 0)
    return now


def test_cores_that_others_use_are_not_free(machine):
    load = Load()
    for others, niced, expected in ((0.0, 0.0, 4), (1.1, 0.0, 3), (4.0, 0.0, 1), (2.0, 2.0, 2)):
        machine.clock += 10
        machine.own += 10  # a core for ourselves
        machine.user += 10 + 10 * others
        machine.nice += 10 * niced
        assert load.free_cores(4) == expected
    assert load.free_cores(1) == 1


def test_between_two_looks_nothing_changes(machine):
    load = Load()
    machine.clock, machine.user = 10.0, 20.0
    assert load.free_cores(4) == 2
    machine.clock, machine.user = 10.05, 20.05
    assert load.free_cores(4) == 2
