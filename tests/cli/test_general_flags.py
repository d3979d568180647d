"""Flags of all verbs: before the verb or behind it."""

from __future__ import annotations

import time

import pytest

from gtool import console
from gtool.cli import run


@pytest.mark.parametrize(
    "words", [["-q", "recipes", "ls"], ["recipes", "ls", "--quiet"], ["recipes", "-q", "ls"]]
)
def test_quiet_stands_anywhere(words, capsys):
    assert run(words) == 0
    shown = capsys.readouterr()
    assert "transgan/scenes" in shown.out
    assert shown.err == ""


def test_behind_two_dashes_it_is_a_name(capsys):
    assert run(["paint", "--", "-q"]) == 1
    assert "-q: " in capsys.readouterr().err


def test_long_work_repeats_what_it_is_doing(monkeypatch, capsys):
    monkeypatch.setattr(console, "SILENT_SECONDS", 0.02)
    with console.progress("training") as update:
        update(1.0, 1.0, "scoring")
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"training 100% scoring"}
    with console.progress("reading"):  # of which no more is known yet
        time.sleep(0.2)
    assert set(capsys.readouterr().err.splitlines()) == {"reading"}
