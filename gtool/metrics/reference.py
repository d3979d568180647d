"""Features of a reference set by one network, computed once and kept in the cache folder.

The key is a hash of everything the features depend on; one process computes while others wait; a file gets its name
only when it is complete, and a file that cannot be read is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import save_file

from gtool.errors import CheckpointError
from gtool.io.files import atomic_write, cache_dir
from gtool.io.weights import read_safetensors
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
        CheckpointError: the cache folder cannot be written.
    """
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    path = cache_dir() / "stats" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
    if (found := _read(path, size, need_rows)) is not None:  # without the lock: a cache may be read-only
        return found
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as bad:
        raise CheckpointError(
            f"cache folder {path.parent}: {bad.strerror or bad}; set $GTOOL_CACHE to another folder"
        ) from None
    try:
        for stale in path.parent.glob(f".{path.stem}.*.tmp{path.suffix}"):
            stale.unlink()  # of a process that was killed while it wrote
        found = _read(path, size, need_rows)  # another may have made them while this one waited
        if found is None:
            found = build()
            _write(path, found, text)
        return found
    finally:
        lock.release()


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
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"key": key})
        except SafetensorError as bad:  # a full disk, too, is one of these
            raise CheckpointError(
                f"{path}: cannot be written: {bad}; set $GTOOL_CACHE to a folder on another disk"
            ) from None
