"""Pictures drawn with NumPy: a shaded ground, a disc and a bar, and ways to spoil them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def draw(count: int, seed: int, side: int = 32) -> np.ndarray:
    """Return uint8 (count, 3, side, side), a function of the arguments for ever."""
    random = np.random.RandomState(seed)
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    ground, disc, bar = random.rand(3, count, 3, 1, 1)
    place = random.rand(6, count, 1, 1)
    picture = 255 * ground * (1 - 0.6 * y)  # lighter above
    inside = (x - place[0]) ** 2 + (y - place[1]) ** 2 < (0.1 + 0.2 * place[2]) ** 2
    picture = np.where(inside[:, None], 255 * disc * (1 - 0.5 * x), picture)
    inside = (abs(x - place[3]) < 0.05 + 0.2 * place[4]) & (abs(y - 0.7) < 0.1)
    picture = np.where(inside[:, None], 255 * bar, picture)
    return as_pixels(picture + 4 * random.randn(*picture.shape))


def as_pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def noisy(images: np.ndarray, deviation: float) -> np.ndarray:
    return as_pixels(images + deviation * np.random.RandomState(9).randn(*images.shape))


def blurred(images: np.ndarray) -> np.ndarray:
    padded = np.pad(images.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    size = images.shape[-1]
    shifts = [padded[:, :, i : i + size, j : j + size] for i in range(3) for j in range(3)]
    return as_pixels(np.mean(shifts, axis=0))


def shuffled(images: np.ndarray, block: int = 8) -> np.ndarray:
    count, _, side, _ = images.shape
    tiles = images.reshape(count, 3, side // block, block, side // block, block).transpose(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(count, -1, 3, block, block)
    order = np.random.RandomState(9).permutation(tiles.shape[1])
    tiles = tiles[:, order].reshape(count, side // block, side // block, 3, block, block)
    return tiles.transpose(0, 3, 1, 4, 2, 5).reshape(images.shape)


def collapsed(images: np.ndarray) -> np.ndarray:
    return np.concatenate([images[:10]] * (len(images) // 10))


def brighter(images: np.ndarray) -> np.ndarray:
    return as_pixels(images.astype(float) + 25)


def static(images: np.ndarray) -> np.ndarray:
    return np.random.RandomState(9).randint(0, 256, images.shape).astype(np.uint8)


def class_folders(folder: Path, count: int = 12) -> Path:
    """Write `count` dark cats and as many bright dogs of 16 px, a folder for each class; returns the folder."""
    for name, level in (("cats", 40), ("dogs", 200)):
        (folder / name).mkdir(parents=True)
        for number, picture in enumerate(draw(count, len(name), 16) // 6 + level):
            Image.fromarray(picture.astype(np.uint8).transpose(1, 2, 0)).save(folder / name / f"{number}.png")
    return folder
