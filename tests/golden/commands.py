"""The command line as these tests use it, and what they read of its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from gtool.cli import run

RECIPES = Path(__file__).parent / "recipes"
FAMILIES = ("transgan", "gansformer", "vqgan", "prior", "paint-transformer")
OF_TIME = {"seconds", "images_per_second"}


def gtool(*arguments: object) -> int:
    """Run a command; returns its exit status."""
    return run([str(argument) for argument in arguments])


def train(family: str, out: Path, *more: object) -> int:
    recipe = RECIPES / f"{family}.toml"
    return gtool("--quiet", "train", family, "--recipe", recipe, "--out", out, "--device", "cpu", *more)


def sample(*arguments: object) -> int:
    return gtool("--quiet", "sample", *arguments, "--device", "cpu", "--precision", "fp32")


def paint(*arguments: object) -> int:
    return gtool("--quiet", "paint", *arguments, "--device", "cpu", "--precision", "fp32")


def score(*arguments: object) -> int:
    return gtool("--quiet", "eval", *arguments, "--device", "cpu", "--precision", "fp32")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The averaged weights that a run ended with."""
    return load_file(sorted(folder.glob("weights-*.safetensors"))[-1])


def state(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the state that a run ended with."""
    newest = sorted(folder.glob("state-*"))[-1]
    files = sorted(newest.glob("*.safetensors"))
    return {f"{file.stem}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def log(folder: Path) -> dict[str, float]:
    """The numbers of log.jsonl that are not times, each called by its step."""
    ticks = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        f"{tick['steps']}.{name}": value
        for tick in ticks
        for name, value in leaves(tick).items()
        if name not in OF_TIME
    }


def leaves(record: Any, prefix: str = "") -> dict[str, float]:
    """The numbers of a record by their paths."""
    if isinstance(record, Mapping):
        items = [(str(key), value) for key, value in record.items()]
    elif isinstance(record, list):
        items = [(str(place), value) for place, value in enumerate(record)]
    else:
        is_number = isinstance(record, int | float) and not isinstance(record, bool)
        return {prefix: float(record)} if is_number else {}
    found: dict[str, float] = {}
    for key, value in items:
        found |= leaves(value, f"{prefix}.{key}" if prefix else key)
    return found


def pixels(path: Path | str) -> np.ndarray:
    """A picture as (H, W, 3) bytes."""
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


def folder_pixels(path: Path | str) -> np.ndarray:
    """The pictures of a folder in the order of their names, one below the other."""
    return np.concatenate([pixels(file) for file in sorted(Path(path).glob("*.png"))])


def draw(seed: int, side: int) -> np.ndarray:
    """A picture of a ramp and three boxes, the same everywhere."""
    random = np.random.RandomState(seed)
    ramp = np.arange(side) * 200 // side
    picture = np.stack(
        [ramp[None] + 0 * ramp[:, None], ramp[:, None] + 0 * ramp[None], 0 * ramp + 90 + 0 * ramp[:, None]]
    )
    for _ in range(3):
        x, y = random.randint(0, side * 3 // 4, 2)
        picture[:, y : y + side // 3, x : x + side // 3] = random.randint(0, 256, (3, 1, 1))
    return picture.astype(np.uint8).transpose(1, 2, 0)


def save_pictures(
    folder: Path,
    count: int,
    side: int,
    *,
    first: int = 0,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Path:
    """Write drawn pictures as 0.png and so on; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture = draw(first + number, side)
        Image.fromarray(picture if change is None else change(picture)).save(folder / f"{number}.png")
    return folder
