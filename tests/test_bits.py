"""What the number of threads does not change; the table is in docs/train.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gtool.cli import run
from tests.helpers.painted import draw_photo


@pytest.fixture
def with_threads(monkeypatch):
    """Run a command with a number of threads; returns what it has written."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that no command chooses for itself
    before = torch.get_num_threads()

    def written(threads, arguments, *names):
        torch.set_num_threads(threads)
        assert run([*arguments, "--device", "cpu"]) == 0
        return [Path(name).read_bytes() for name in names]

    yield written
    torch.set_num_threads(before)


def test_pictures_are_the_same_by_any_number_of_threads(with_threads, tiny_weights):
    command = ["sample", str(tiny_weights), "-n", "5", "-o", "a.png"]
    assert with_threads(1, command, "a.png") == with_threads(3, command, "a.png")


def test_strokes_are_the_same_by_any_number_of_threads(with_threads):
    draw_photo("photo.png", size=(96, 64))
    command = ["paint", "photo.png", "-o", "a.png", "--strokes", "a.json", "--force"]
    assert with_threads(1, command, "a.png", "a.json") == with_threads(3, command, "a.png", "a.json")
