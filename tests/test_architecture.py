"""The structure of the package: who may import whom, and what start-up must not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gtool

PACKAGE = Path(gtool.__file__).parent
# Rooms from the top down: each may import from the rows below its own.
LEVELS = [
    {"__main__"},
    {"cli"},
    {"train", "sample", "paint", "eval", "export"},
    {"models", "data", "metrics", "strokes"},
    {"nn", "losses"},
    {"io", "config", "runtime"},
    {"console"},
    {"errors"},
]
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
# Arrows that do not point downwards yet.
EXCEPTIONS = {
    "data -> metrics",
}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "gtool":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("gtool.")}
    return found - {"__version__"}


SOURCES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
    room = _room(path)
    upwards = {f"{room} -> {other}" for other in _imports(path) - {room} if LEVEL[other] <= LEVEL[room]}
    assert upwards <= EXCEPTIONS


def test_the_training_loop_knows_no_model():
    from gtool.models.registry import MODELS

    text = (PACKAGE / "train" / "loop.py").read_text(encoding="utf-8").lower()
    assert [name for name in MODELS if name in text] == []


HEAVY = ["torch", "numpy", "datasets", "accelerate", "scipy", "pandas", "torchvision", "safetensors"]
LIGHT_COMMANDS = {
    "help": (["--help"], 0),
    "help of a verb": (["train", "--help"], 0),
    "version": (["--version"], 0),
    "bad flag": (["train", "transgan", "--kimgs", "3"], 2),
    "unknown verb": (["trian"], 2),
    "unknown model": (["train", "transgun"], 2),
    "bad recipe key": (["train", "transgan", "--set", "train.batchsize=3"], 2),
    "bad model key": (["train", "transgan", "--set", "model.generator.blocks=3"], 2),
    "missing recipe": (["train", "transgan", "--recipe", "none.toml"], 2),
    "missing data folder": (["train", "transgan", "--dataset", "./nothing-here"], 1),
    "missing run": (["train", "transgan", "--resume", "runs/none"], 1),
    "bad sampling": (["sample", "none.safetensors", "--mix", "0-2"], 2),
    "missing weights": (["sample", "none.safetensors"], 1),
    "missing eval folder": (["eval", "./nothing-here", "--rfd"], 1),
    "bad gate": (["eval", "--max", "fdi=20"], 2),
    "bad result file": (["eval", "-o", "result.pdf"], 2),
    "missing baseline": (["eval", "--baseline", "none.json"], 1),
    "missing photo": (["paint", "none.jpg"], 1),
    "missing clip": (["paint", "none.mp4", "--fps", "12"], 1),
    "vectors of a clip": (["paint", "none.mp4", "-o", "painted.mp4", "--frames", "9"], 2),
    "missing strokes": (["paint", "--from-strokes", "none.json"], 1),
    "missing predictor": (["paint", "none.jpg", "--weights", "runs/none"], 1),
    "bad brush": (["paint", "none.jpg", "--brush", "flatt"], 2),
    "bad canvas": (["paint", "none.jpg", "--canvas-color", "#12"], 2),
    "bad painting": (["paint", "none.jpg", "-o", "painted.tiff"], 2),
    "bad method": (["paint", "none.jpg", "--method", "gredy"], 2),
    "missing export": (["export", "none.safetensors", "--format", "onnx"], 1),
}


@pytest.mark.parametrize("name", LIGHT_COMMANDS)
def test_answers_without_importing_anything_heavy(name):
    arguments, status = LIGHT_COMMANDS[name]
    code = (
        "import sys; from gtool.cli import run; status = run(sys.argv[1:]); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"[] {status}"
    if status:
        assert len(done.stderr.strip().splitlines()) == 1
