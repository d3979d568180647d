"""Scores for notebooks: `score_images`, which `gtool.score` is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gtool.errors import RecipeError, did_you_mean
from gtool.eval.checks import find_target
from gtool.eval.image_sets import (
    ImageSet,
    ImageSpec,
    StoredImages,
    open_array,
    open_generated,
    open_stored,
    spec_of_training,
)
from gtool.eval.scores import Record, open_networks, score
from gtool.metrics.registry import METRICS
from gtool.models.description import read_description
from gtool.runtime.device import make_compute


def score_images(
    fake: Any,
    reference: Any = None,
    *,
    metrics: Sequence[str] = ("rfd", "swd"),
    num: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    device: str = "auto",
    resolution: int | None = None,
) -> dict[str, Record]:
    """Score images against real ones; returns a record of each score by its name, with `value` and `protocol`.

    Args:
        fake: a run or weights file, a model of `gtool.load`, a folder, a data set's name, or an array or tensor of
            uint8 images (N, 3, H, W).
        reference: the same, but for models; None for the data that a run was trained on.
        metrics: names of the flags of `gtool eval`, such as `fid` and `kid`; none of pairs.
        num: images of each set; by default all that are stored, and of a model as many as the metrics want.
        seed: of the generated images, and of the choice of stored ones.
        batch_size: images a forward; changes no more than rounding.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        resolution: crop and resize stored images to so many pixels.

    Raises:
        GToolError: a metric that does not exist, images that are not there, weights of a network that cannot be had.
    """
    if unknown := [name for name in metrics if name not in METRICS or METRICS[name].is_paired]:
        raise RecipeError(f"metric `{unknown[0]}` does not exist{did_you_mean(unknown[0], list(METRICS))}")
    entries = [METRICS[name] for name in metrics]
    compute = make_compute(device)
    weights = _weights_of(fake)
    if weights is None:
        fake_set: ImageSet = _open(fake, num, seed, resolution)
    else:
        num = num or max(entry.num_images for entry in entries)
        fake_set, _ = open_generated(weights, compute, num=num, seed=seed)
        spec = spec_of_training(read_description(weights)[0], weights)
        resolution = spec.resolution
        reference = spec if reference is None else reference
    real = None
    if any(entry.real for entry in entries):
        if reference is None:
            raise RecipeError("name a reference: these metrics compare with real images")
        real = _open(reference, num, seed, resolution)
    networks = open_networks(metrics, compute.device)
    return score(fake_set, real, metrics, networks, compute, seed=seed, batch_size=batch_size)


def _weights_of(images: Any) -> Path | None:
    """Return the weights that a run, a file of weights or a loaded model means; None for images."""
    if hasattr(images, "network"):
        return Path(images.path)
    if not isinstance(images, str | Path):
        return None
    path = Path(images).expanduser()
    is_model = path.suffix == ".safetensors" or any(path.glob("weights-*.safetensors"))
    return find_target(str(images))[0] if is_model else None


def _open(images: Any, num: int | None, seed: int, resolution: int | None) -> StoredImages:
    """Open a folder or data set by its name, or an array."""
    if isinstance(images, str | Path):
        images = ImageSpec(str(images), resolution=resolution, sized=resolution is not None)
    if isinstance(images, ImageSpec):
        return open_stored(images, num, seed)
    return open_array(images, num, seed)
