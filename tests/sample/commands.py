"""`gtool sample` as these tests use it, and what they read of its files."""

from __future__ import annotations

import numpy as np
from PIL import Image

from gtool.cli import run


def sample(*arguments) -> int:
    """Run `gtool sample` on the CPU; returns its exit status."""
    return run(["sample", *map(str, arguments), "--device", "cpu"])


def pixels(path) -> np.ndarray:
    """A picture as (H, W, 3) integers."""
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


def text(path) -> dict[str, str]:
    """The text chunks of a PNG."""
    with Image.open(path) as opened:
        return dict(opened.text)
