"""Small photos, and `gtool paint` called on them without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gtool.cli import run
from tests.helpers.pictures import draw

SIDE = 48


def paint(*arguments, method="random") -> int:
    flags = [] if method is None else ["--method", method]
    return run(["paint", "--device", "cpu", *flags, *map(str, arguments)])


def draw_photo(name, seed: int = 0, size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    """A photo with a ground, a disc and a bar."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(draw(1, seed, max(size))[0].transpose(1, 2, 0))
    picture.crop((0, 0, *size)).save(path)
    return path


def pixels(path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


def distance(one, other) -> float:
    return float(np.abs(pixels(one) - pixels(other)).mean())


def refusal(capsys) -> str:
    """The one line on stderr."""
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())
