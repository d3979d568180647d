"""Completion of values, as a shell asks for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gtool.cli import run

LINES = {
    "gtool train tr": ["transgan"],
    "gtool train transgan --recipe transgan/ci": [
        "transgan/cifar10",
        "transgan/cifar10-cpu",
        "transgan/cifar10-v1",
    ],
    "gtool train transgan --dataset sc": ["scenes"],
    "gtool train transgan --resume runs/": ["runs/one"],
    "gtool train transgan --precision b": ["bf16"],
    "gtool train transgan --tracker t": ["tensorboard", "trackio"],
    "gtool eval --max rf": ["rfd="],
    "gtool paint photo.jpg --brush r": ["round"],
    "gtool export --format o": ["onnx"],
    "gtool export --from tam": ["taming"],
}


@pytest.fixture
def ask(monkeypatch, tmp_path, capsys):
    """A function from a shell and what was typed in it to the words that it offers."""
    monkeypatch.chdir(tmp_path)
    run_folder = Path("runs/one")
    run_folder.mkdir(parents=True)
    (run_folder / "recipe.toml").touch()

    def asked(shell: str, line: str) -> list[str]:
        monkeypatch.setenv("_GTOOL_COMPLETE", f"complete_{shell}")
        if shell == "bash":
            monkeypatch.setenv("COMP_WORDS", line)
            monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        else:
            monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
            monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        run([])
        text = capsys.readouterr().out
        return sorted(re.findall(r'"([^"]*)"', text) if shell == "zsh" else text.split())

    return asked


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("line", LINES)
def test_a_shell_is_offered_the_values_that_there_are(ask, shell, line):
    assert ask(shell, line) == LINES[line]
