"""Training runs as a user starts, stops and compares them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from gtool.cli import run
from gtool.config.recipe import to_toml
from gtool.config.schema import Recipe
from tests.helpers.forked import Process


def flat(network: torch.nn.Module) -> torch.Tensor:
    """All parameters of a network as one vector."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def write_recipe(recipe: Recipe) -> str:
    """Write a recipe into the working folder; returns the file's name."""
    Path("tiny.toml").write_text(to_toml(recipe), encoding="utf-8")
    return "tiny.toml"


def train(model: str, recipe: str, out: str, *more: str) -> int:
    return run(["train", model, "--recipe", recipe, "--out", out, "--device", "cpu", *more])


def start(model: str, recipe: str, out: str, *more: str) -> Process:
    """Begin a run in a process of its own."""
    return Process(["train", model, "--recipe", recipe, "--out", out, "--device", "cpu", *more])


def final_state(out: str | Path) -> dict[str, torch.Tensor]:
    state = sorted(Path(out).glob("state-*"))[-1]
    return {f"{f.stem}/{k}": v for f in sorted(state.glob("*.safetensors")) for k, v in load_file(f).items()}


def assert_same_state(first: str | Path, second: str | Path) -> None:
    a, b = final_state(first), final_state(second)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def wait_for(path: Path, pattern: str, process: Process | subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not list(path.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def kill_at(moment: str, out: str, process: Process | subprocess.Popen) -> None:
    """End a run without any warning as soon as a file of this pattern is in its folder."""
    wait_for(Path(out), moment, process)
    process.kill()
    process.communicate()
