"""What all of these tests share: one thread, a folder of their own, and runs that are trained once.

The tests go through the command line alone, so that they hold whatever moves inside of the package. Stored values
are in values.json; `frozen.py` says how they are compared. They are made anew by

    GTOOL_UPDATE_GOLDEN=1 python -m pytest -n 0 tests/golden

which is right only where a result is meant to change.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from .commands import FAMILIES, save_pictures, train
from .frozen import Frozen


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test has one thread, its own working folder and cache, and no weights but its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("GTOOL_DATA", "GTOOL_INCEPTION_WEIGHTS", "GTOOL_CLIP_WEIGHTS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def frozen() -> Frozen:
    return Frozen()


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a function that trains a family once and gives the folder of the run."""
    folder = tmp_path_factory.mktemp("runs")

    def trained(name: str) -> Path:
        out = folder / name
        if not out.exists():
            assert train_named(name, out, trained) == 0
        return out

    return trained


def train_named(name: str, out: Path, trained: Callable[[str], Path], *more: object) -> int:
    """Train a family on scenes, or `prior-of-classes` on pictures of two classes."""
    if name == "prior-of-classes":
        pets = out.parent / "pets"
        for first, kind in ((0, "cats"), (50, "dogs")):
            save_pictures(pets / kind, 12, 16, first=first)
        settings = ["--dataset", pets, "--set", "data.condition=class", "--set", "data.num_images=24"]
        return train("prior", out, "--tokenizer", trained("vqgan"), *settings, *more)
    if name == "prior":
        more = ("--tokenizer", trained("vqgan"), *more)
    return train(name, out, *more)


@pytest.fixture
def run_of(_trained: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Returns a function that gives a copy of a trained run."""

    def copied(name: str) -> Path:
        return Path(shutil.copytree(_trained(name), tmp_path / "copies" / name, dirs_exist_ok=True))

    return copied


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param
