"""gtool: train, sample, paint with, score and export the transformer image generators. From Python:

    import gtool

    model = gtool.load("runs/transgan-scenes-000")                  # or a weights file, a hub id; the newest run
    images = model.sample(num=16, seed=0)                           # uint8 (16, R, R, 3)
    gtool.paint("photo.jpg").to_image(1024).save("painted.png")
    scores = gtool.score(model, metrics=["rfd", "swd"])             # against the data that it was trained on
    scores["rfd"]["value"]

Importing gtool imports nothing else; each function imports what it needs. What a user can put right is raised as a
`gtool.errors.GToolError` of one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from gtool.models.generate import TrainedModel
    from gtool.strokes.canvas import Painting

__version__ = "0.1.0"
__all__ = ["__version__", "load", "paint", "sample", "score"]


def load(path: str | Path | None = None, device: str = "auto", precision: str = "auto") -> TrainedModel:
    """Load a trained model that makes images.

    Args:
        path: a run folder, a weights file or a hub id; None for the newest run in ./runs.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `auto` (bf16 where the hardware multiplies faster in it), `bf16` or `fp32`.

    Returns:
        A model with `.sample(num=, seed=)`, uint8 (num, R, R, 3), `.batches` for many images, and its `.network`.

    Raises:
        CheckpointError: no such weights, damaged ones, or of a model that makes no images by itself.
        DeviceError: a device that this machine does not have.
    """
    from gtool.models.generate import load_model

    return load_model(path, device, precision)


def sample(
    path: str | Path | None = None, *, num: int = 1, seed: int = 0, **options: Any
) -> NDArray[np.uint8]:
    """Return images 0 to num - 1 of a seed from trained weights, uint8 (num, R, R, 3).

    Short for `gtool.load(path).sample(num, seed, **options)`: to sample more than once, load once.
    """
    return load(path).sample(num, seed, **options)


def paint(
    image: Image | NDArray[np.uint8] | str | Path,
    *,
    method: Any = "predictor",
    brush: str = "flat",
    detail: float = 0.5,
    canvas_color: str = "auto",
    max_strokes: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Painting:
    """Paint an image with the stroke predictor that comes with gtool, or without a network.

    Args:
        image: a Pillow image, uint8 (H, W, 3), or a file.
        method: `predictor`, or without a network `greedy` or `random`.
        brush: `flat`, `round`, `dry`, or a file or folder with a picture of a brush mark.
        detail: in [0, 1]: 0 for broad strokes, 1 for strokes down to the pixels.
        canvas_color: `auto` for the mean of the image, a name or `#rrggbb`.
        max_strokes: paint no more than these.
        seed: another seed paints other strokes.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    Returns:
        The strokes; `.to_image(longer)` renders them as a Pillow image with so many pixels of the longer side.

    Raises:
        GToolError: an image, brush, colour or device that is not there.
    """
    from gtool.paint.painter import paint_image

    return paint_image(
        image,
        method=method,
        brush=brush,
        detail=detail,
        canvas_color=canvas_color,
        max_strokes=max_strokes,
        seed=seed,
        device=device,
    )


def score(
    images: Any,
    reference: Any = None,
    *,
    metrics: Sequence[str] = ("rfd", "swd"),
    num: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    device: str = "auto",
    resolution: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Score images, or what a trained model makes, against real images.

    Args:
        images: a model of `gtool.load`, a run or weights file, a folder, a data set's name, or uint8 (N, 3, H, W).
        reference: the same, but for models; None for the data that a run was trained on.
        metrics: as the flags of `gtool eval`: `fid`, `kid`, `rfd` ...; the defaults need no download.
        num: images of each set; default all that are stored, and of a model as many as the metrics want.
        seed: of the generated images, and of the choice of stored ones.
        batch_size: images a forward; changes no result.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        resolution: crop and resize stored images to so many pixels.

    Returns:
        A record for each score by its name, with `value` and `protocol`.

    Raises:
        GToolError: a metric that does not exist, images that are not there, weights of a network that cannot be had.
    """
    from gtool.eval.api import score_images

    return score_images(
        images,
        reference,
        metrics=metrics,
        num=num,
        seed=seed,
        batch_size=batch_size,
        device=device,
        resolution=resolution,
    )
