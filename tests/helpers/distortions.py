"""What was done to images of CIFAR-10 to see which weight-free metric notices (reference measurements of rfd and swd).

Images are uint8 (N, 3, 32, 32); everything is a function of the images alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from tests.helpers.pictures import as_pixels, shuffled

Change = Callable[[np.ndarray], np.ndarray]


def _each(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    changed = [np.asarray(change(Image.fromarray(image.transpose(1, 2, 0)))) for image in images]
    return np.stack(changed).transpose(0, 3, 1, 2)


def noise(deviation: float) -> Change:
    return lambda images: as_pixels(images + deviation * np.random.RandomState(9).randn(*images.shape))


def blur(radius: float) -> Change:
    return lambda images: _each(images, lambda image: image.filter(ImageFilter.GaussianBlur(radius)))


def jpeg(quality: int) -> Change:
    def press(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return lambda images: _each(images, press)


def repeated(images: np.ndarray) -> np.ndarray:
    """A fortieth of the images, as often again."""
    few = images[: max(1, len(images) // 40)]
    return np.tile(few, (-(-len(images) // len(few)), 1, 1, 1))[: len(images)]


def centre_mirrored(images: np.ndarray) -> np.ndarray:
    changed = images.copy()
    changed[:, :, 8:24, 8:24] = images[:, :, 8:24, 23:7:-1]
    return changed


def like_gaussian(images: np.ndarray) -> np.ndarray:
    """Draw pixels from the Gaussian that has the images' mean and covariance."""
    rows = images.reshape(len(images), -1).astype(float)
    draws = np.random.RandomState(9).randn(len(rows), len(rows)) / np.sqrt(len(rows) - 1)
    return as_pixels(rows.mean(0) + draws @ (rows - rows.mean(0))).reshape(images.shape)


def uniform(images: np.ndarray) -> np.ndarray:
    return np.random.RandomState(9).randint(0, 256, images.shape).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "none": lambda images: images,
    "noise 5": noise(5),
    "noise 10": noise(10),
    "noise 20": noise(20),
    "blur 0.3": blur(0.3),
    "blur 0.6": blur(0.6),
    "blur 1.0": blur(1.0),
    "jpeg 90": jpeg(90),
    "jpeg 50": jpeg(50),
    "centre mirrored": centre_mirrored,
    "upside down": lambda images: images[:, :, ::-1].copy(),
    "gaussian pixels": like_gaussian,
    "blocks shuffled": shuffled,
    "repeated": repeated,
    "uniform noise": uniform,
}
