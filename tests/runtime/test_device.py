"""Random numbers that are functions of what they are for; devices that exist."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch

from gtool.errors import DeviceError
from gtool.runtime.device import make_compute
from gtool.runtime.processes import LAUNCHER
from gtool.runtime.random import derive_seed
from gtool.runtime.torch_random import hashed_normal, make_generator


def test_seeds_are_the_same_for_ever():
    # Computed once with this function (BLAKE2b): a change would break every resume and every seed.
    assert derive_seed(0, "init") == 4186570775263033893


def test_seeds_tell_numbers_from_text():
    assert derive_seed(1) != derive_seed("1")
    assert derive_seed("a", "b") != derive_seed("ab")


def test_a_generator_depends_on_its_parts_alone():
    torch.manual_seed(1)
    first = torch.randn(3, generator=make_generator(0, "z", 5))
    torch.manual_seed(2)
    assert torch.equal(first, torch.randn(3, generator=make_generator(0, "z", 5)))


def test_hashed_normal_rows_depend_on_their_index_alone():
    together = hashed_normal(3, torch.arange(100), 7)
    assert torch.equal(together[42:43], hashed_normal(3, torch.tensor([42]), 7))
    assert not torch.equal(together[42], hashed_normal(3, torch.tensor([42]), 7, stream=1)[0])


def test_hashed_normal_is_normal():
    values = hashed_normal(0, torch.arange(4000), 64).double()
    assert abs(values.mean()) < 0.01
    assert abs(values.var() - 1) < 0.01
    assert abs((values**4).mean() - 3) < 0.06
    correlation = torch.corrcoef(values.T) - torch.eye(64)
    assert correlation.abs().max() < 0.08


def test_hashed_normal_has_known_values():
    # Computed once with this function; samples of a seed must never change.
    expected = torch.tensor([0.5481477, 0.0517720])
    assert torch.allclose(hashed_normal(0, torch.tensor([7]), 2)[0], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["gpu", "cuda", "tpu"])
def test_a_device_that_is_not_there_is_one_line(name):
    if name == "cuda" and torch.cuda.is_available():
        name = "cuda:99"
    with pytest.raises(DeviceError, match=name):
        make_compute(name)


def test_the_number_of_processes_is_asserted():
    with pytest.raises(DeviceError, match="2 processes were asked for and 1"):
        make_compute("cpu", num_processes=2)


@pytest.mark.skipif(os.name != "posix", reason="Windows does not say that a parent is gone")
def test_what_a_killed_command_has_launched_ends_too():
    """The launcher below is killed; what it started holds the other end of a pipe until it ends."""
    child = (
        "import time; from gtool.runtime.processes import end_with_launcher; end_with_launcher(); "
        "print(1, flush=True); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys, time; os.environ[sys.argv[1]] = str(os.getpid()); "
        "subprocess.Popen([sys.executable, '-c', sys.argv[2]]); time.sleep(60)"
    )
    command = [sys.executable, "-c", parent, LAUNCHER, child]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "1\n"
        launcher.kill()
        started = time.monotonic()
        assert launcher.stdout.read() == ""
    assert time.monotonic() - started < 30


@pytest.fixture
def three_threads():
    """A process of three threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_the_user_decides_about_threads(monkeypatch, three_threads):
    monkeypatch.setattr("gtool.runtime.load.Load.free_cores", lambda self, most: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    make_compute("cpu").follow_load()
    assert torch.get_num_threads() == 3


def test_operations_have_as_many_threads_as_there_are_free_cores(monkeypatch, three_threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    free = iter((1, 2, 3))
    monkeypatch.setattr("gtool.runtime.load.Load.free_cores", lambda self, most: min(most, next(free)))
    compute = make_compute("cpu")
    assert (compute.threads, torch.get_num_threads()) == (3, 1)
    compute.follow_load()
    assert torch.get_num_threads() == 2
    again = make_compute("cpu")  # what was busy then is not taken for the size of the machine
    assert (again.threads, torch.get_num_threads()) == (3, 3)
