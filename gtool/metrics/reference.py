"""Features of a reference set by one network, computed once and kept in the cache folder.

The key is a hash of everything the features depend on; one process computes while others wait; a file gets
its name only when it is complete, and a file that cannot be read is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gtool.errors import CheckpointError
from gtool.io.files import atomic_write, cache_dir
from gtool.metrics.features.collector import Features
from gtool.metrics.features.inception_network import SIZE
from gtool.metrics.frechet import Moments

FORMAT = 1
PATIENCE = 30  # seconds that a process waits for another before it says so to those who wait for it


def reference_features(
    key: Mapping[str, str | int],
    build: Callable[[], Features],
    *,
    need_rows: bool = False,
    size: int = SIZE,
    waiting: Callable[[], object] | None = None,
) -> Features:
    """Return cached features, or those that `build` computes.

    key: fingerprint and choice of the images, protocol, digest of the weights.
    need_rows: features without their rows do not do.
    size: numbers in a row.
    waiting: called now and then while another process computes them.

    Raises:
        CheckpointError: the cache folder cannot be written.
    """
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    path = cache_dir() / "stats" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"

    def find() -> Features | None:
        cached = _read(path, size)
        return None if cached is None or (need_rows and cached.rows is None) else cached

    if (found := find()) is not None:  # without the lock: a cache that is complete may be read-only
        return found
    with _alone(path.with_suffix(".lock"), waiting):
        for stale in path.parent.glob(f".{path.stem}.*.tmp{path.suffix}"):
            stale.unlink()  # of a process that was killed while it wrote
        found = find()  # another process may have made them while this one waited
        if found is None:
            found = build()
            _write(path, found, text)
        return found


@contextmanager
def _alone(path: Path, waiting: Callable[[], object] | None) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    while not lock.is_locked:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=-1 if waiting is None else PATIENCE)
        except Timeout:
            assert waiting is not None
            waiting()
        except OSError as bad:
            raise CheckpointError(
                f"cache folder {path.parent}: {bad.strerror or bad}; set $GTOOL_CACHE to another folder"
            ) from None
    try:
        yield
    finally:
        lock.release()


def _write(path: Path, features: Features, key: str) -> None:
    tensors = {}
    if features.rows is not None:
        tensors["rows"] = features.rows.contiguous()
    if features.rows is None or features.count >= features.rows.shape[1]:
        tensors |= {"mean": features.moments.mean, "scatter": features.moments.scatter}
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"count": str(features.count), "key": key})
        except SafetensorError as bad:  # a full disk, too, is one of these
            raise CheckpointError(
                f"{path}: cannot be written: {bad}; set $GTOOL_CACHE to a folder on another disk"
            ) from None


def _read(path: Path, size: int) -> Features | None:
    """Return what a file holds, or None when there is none that can be read."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            count = int(opened.metadata()["count"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    if not _is_sound(tensors, count, size):
        return None
    moments = Moments(count, tensors["mean"], tensors["scatter"]) if "scatter" in tensors else None
    return Features(count, tensors.get("rows"), moments)


def _is_sound(tensors: Mapping[str, Tensor], count: int, size: int) -> bool:
    """Say whether these are the features of `count` images, by rows or by moments or both."""
    shapes = {"rows": (count, size), "mean": (size,), "scatter": (size, size)}
    return ("rows" in tensors or {"mean", "scatter"} <= tensors.keys()) and all(
        tensor.shape == shapes.get(name) and bool(torch.isfinite(tensor).all())
        for name, tensor in tensors.items()
    )
