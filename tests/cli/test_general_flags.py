"""Flags of all verbs: before the verb or behind it."""

from __future__ import annotations

import pytest

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
