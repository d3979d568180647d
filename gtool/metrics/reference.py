"""Features of a reference set by one network, computed once and kept in the cache folder.

An entry of `gtool.io.cache`, whose key is a hash of everything the features depend on.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from gtool.errors import CheckpointError
from gtool.io.cache import CacheEntry
from gtool.io.weights import read_safetensors, save_weights
from gtool.metrics.features.collector import Features
from gtool.metrics.features.inception_network import SIZE
from gtool.metrics.frechet import Moments

FORMAT = 2


def reference_features(
    key: Mapping[str, str | int], build: Callable[[], Features], *, need_rows: bool = False, size: int = SIZE
) -> Features:
    """Return cached features of rows of so many numbers, or those that `build` computes.

    key: fingerprint and choice of the images, protocol, digest of the weights.

    Raises:
        DataError: the cache folder cannot be written.
    """
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    entry = CacheEntry("stats", "features", str(size), (text,))
    path = entry.folder / f"{entry.stem}.safetensors"
    return entry.get(lambda: _read(path, size, need_rows), lambda: _write(path, build(), text))


def _read(path: Path, size: int, need_rows: bool) -> Features | None:
    """Return what a file holds, or None when there is none that can be read or used."""
    try:
        tensors = read_safetensors(path)
    except CheckpointError:
        return None
    count = int(tensors.pop("count", torch.tensor(0)))
    shapes = {"rows": (count, size), "mean": (size,), "scatter": (size, size)}
    needed = {"rows"} if need_rows or "rows" in tensors else {"mean", "scatter"}
    if not needed <= tensors.keys() or any(one.shape != shapes.get(name) for name, one in tensors.items()):
        return None
    moments = Moments(count, tensors["mean"], tensors["scatter"]) if "scatter" in tensors else None
    return Features(count, tensors.get("rows"), moments)


def _write(path: Path, features: Features, key: str) -> None:
    tensors = {"count": torch.tensor(features.count)}
    if features.rows is not None:
        tensors["rows"] = features.rows.contiguous()
    if features.rows is None or features.count >= features.rows.shape[1]:
        tensors |= {"mean": features.moments.mean, "scatter": features.moments.scatter}
    save_weights(path, tensors, {"key": key})
