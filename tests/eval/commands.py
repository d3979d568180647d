"""`gtool eval` as these tests run it, and the folders that they score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gtool.cli import run

Capture = pytest.CaptureFixture[str]


def save(folder: Path, images: np.ndarray, suffix: str = ".png") -> Path:
    """Write pictures uint8 (N, 3, H, W) as 0000.png and so on; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:04d}{suffix}")
    return folder


def answer(capsys: Capture, *arguments: Any) -> tuple[dict[str, Any], str]:
    """Score something that can be; returns the record and what was said beside it."""
    assert run(["eval", *map(str, arguments), "--json", "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    return json.loads(shown.out), shown.err


def ask(capsys: Capture, *arguments: Any) -> dict[str, Any]:
    """Score something that can be; returns the record."""
    return answer(capsys, *arguments)[0]


def refuse(capsys: Capture, *arguments: Any) -> tuple[int, str]:
    """Ask for what cannot be scored; returns the exit status and the one line that says why."""
    status = run(["--quiet", "eval", *map(str, arguments)])
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return status, lines[0]
