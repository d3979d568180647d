"""The structure of the package: who may import whom and where, and what start-up must not import."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import gtool
from gtool.models.registry import MODELS

PACKAGE = Path(gtool.__file__).parent
# Rooms from the top down: each may import from the rows below its own.
LEVELS = [
    {"__main__"},
    {"cli"},
    {path.parent.name for path in PACKAGE.glob("*/run.py")},  # the verbs
    {"models", "data", "metrics", "strokes"},
    {"nn", "losses", "flags"},
    {"io", "config", "runtime"},
    {"console", "reading"},
    {"errors"},
]
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
# Libraries that may be imported inside a function: optional extras, and slow ones that few commands reach.
LATE = {
    *("av", "onnx", "onnxruntime", "onnxscript", "transformers", "tensorboard"),  # extras
    *("datasets", "huggingface_hub", "pyarrow"),  # half a second, for the hub and for tables alone
    "resource",  # of POSIX alone
    "yaml",  # comes with `datasets`, for the descriptions of tables
    "filelock",  # brings asyncio; needed by whoever writes a run
    "matplotlib",  # a third of a second, when something is drawn
    "torchmetrics",  # two seconds, for pairs of images alone
    "torch.distributed",  # of the launcher, by a process that needs no torch itself
    "accelerate.tracking",  # asks for the extra `tensorboard`
    "scipy",  # a quarter of a second, for two diagnostics and plots
}
LONGEST = 60  # lines of a function outside of cli/, whose functions are declarations


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def _trees() -> dict[str, ast.Module]:
    return {
        _name(path): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "__init__.py"  # the Python API: reaches everything, inside functions
    }


def _room(module: str) -> str:
    return module.split(".")[1]


def _imported(node: ast.AST) -> Iterator[str]:
    """Yield what one statement imports, by full names; nothing in the package is imported relatively."""
    if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            inside = f"{node.module}.{alias.name}"
            yield inside if inside in _trees() or node.module == "gtool" else node.module
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)


def _edges(module: str) -> set[str]:
    found = {name for node in ast.walk(_trees()[module]) for name in _imported(node)}
    return {name for name in found if name in _trees() and name != module}


def _functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_imports_follow_the_arrows():
    """Downwards only, those for types and inside functions too: so no verb imports another."""
    upwards = {
        f"{_room(module)} -> {_room(other)}"
        for module in _trees()
        for other in _edges(module)
        if _room(module) != _room(other) and LEVEL[_room(other)] <= LEVEL[_room(module)]
    }
    assert sorted(upwards) == []


def test_modules_do_not_import_each_other():
    """Modules that nothing outside the rest imports are taken away until none is left."""
    edges = {module: _edges(module) for module in _trees()}
    while removable := [module for module, targets in edges.items() if not targets & edges.keys()]:
        for module in removable:
            del edges[module]
    # What remains is in a circle, or imports one.
    circles = {module for module in edges if _reaches(edges, module, module)}
    assert sorted(circles) == []


def _reaches(edges: dict[str, set[str]], start: str, goal: str) -> bool:
    seen, waiting = set(), [start]
    while waiting:
        for other in edges.get(waiting.pop(), set()) - seen:
            seen.add(other)
            waiting.append(other)
    return goal in seen


def test_imports_stand_at_the_top_of_files():
    """Inside functions: only the command line, and libraries that are optional or slow."""
    late = defaultdict(set)
    for module, tree in _trees().items():
        for function in _functions(tree):
            names = {name for node in ast.walk(function) for name in _imported(node)}
            late[module] |= {name for name in names if not any(f"{name}.".startswith(f"{x}.") for x in LATE)}
    found = {module for module, names in late.items() if names and _room(module) not in ("cli", "__main__")}
    assert sorted(found) == []


def test_class_names_are_unique_in_a_folder():
    names = Counter(
        f"{module.rpartition('.')[0]}.{node.name}"
        for module, tree in _trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    assert sorted({name for name, count in names.items() if count > 1}) == []
    requests = {module for module in _trees() if re.search(r"\bRequest\b", ast.unparse(_trees()[module]))}
    assert sorted(requests) == []


def test_model_names_are_compared_in_the_registry_alone():
    found = {
        module
        for module, tree in _trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.match_case)
        for part in ast.walk(node.pattern if isinstance(node, ast.match_case) else node)
        if isinstance(part, ast.Constant) and part.value in MODELS
    }
    assert sorted(found - {"gtool.models.registry"}) == []


def test_functions_are_short():
    long = {
        f"{module}.{function.name}"
        for module, tree in _trees().items()
        for function in _functions(tree)
        if _room(module) != "cli" and (function.end_lineno or 0) - function.lineno + 1 > LONGEST
    }
    assert sorted(long) == []


def test_the_training_loop_knows_no_model():
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
    "missing eval folder and no metric": (["eval", "./nothing-here"], 1),
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


# Each command in a fork of a process that has imported the command line: heavy modules, status, lines on stderr.
IN_FORKS = """
import json, os, sys, tempfile
from gtool.cli import run
heavy, commands = json.load(sys.stdin)
for arguments in commands:
    with tempfile.TemporaryFile("w+") as answer, tempfile.TemporaryFile("w+") as errors:
        if not os.fork():
            os.dup2(errors.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            status = run(arguments)
            sys.stderr.flush()
            json.dump([[name for name in heavy if name in sys.modules], status], answer)
            answer.flush()
            os._exit(0)
        os.wait()
        answer.seek(0)
        errors.seek(0)
        print(json.dumps([*json.load(answer), len(errors.read().strip().splitlines())]))
"""


@pytest.fixture(scope="module")
def answers():
    """What each of LIGHT_COMMANDS imported and said, by name."""
    given = json.dumps([HEAVY, [arguments for arguments, _ in LIGHT_COMMANDS.values()]])
    program = [sys.executable, "-c", IN_FORKS]
    done = subprocess.run(program, input=given, capture_output=True, text=True, check=True)
    return dict(zip(LIGHT_COMMANDS, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", LIGHT_COMMANDS)
def test_answers_without_importing_anything_heavy(name, answers):
    imported, status, lines = answers[name]
    assert (imported, status) == ([], LIGHT_COMMANDS[name][1])
    if status:
        assert lines == 1
