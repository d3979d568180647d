"""Means and covariances of Inception features as files: mu (2048,) and sigma (2048, 2048) in an .npz.

clean-fid, pytorch-fid and the authors of FID (TTUR) write these two arrays, and so does gtool, which adds what it
knows of them: number of images, mode, weights, name. Never unpickled; sizes are checked before anything is read.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gtool.errors import DataError
from gtool.io.files import atomic_write
from gtool.metrics.features.collector import Features
from gtool.metrics.features.inception import SIZE
from gtool.metrics.frechet import Moments

MOST_BYTES = SIZE * SIZE * 8 + 4096  # of one array in the file
TOLERANCE = 1e-4  # by which sigma may differ from its transpose, as a share of its largest entry
FACTS = ("count", "mode", "weights", "name", "fingerprint", "dtype")


@dataclass(frozen=True)
class Statistics:
    """What a file holds; None or 0 for what it does not say."""

    features: Features  # moments alone; its count is that of the images, 0 where unknown
    sha256: str
    mode: str | None = None
    weights: str | None = None
    name: str | None = None
    fingerprint: str | None = None
    dtype: str | None = None


def read_statistics(path: Path) -> Statistics:
    """Read and check a file.

    Raises:
        DataError: missing, no .npz, without mu and sigma, of other shapes, not finite, not symmetric, of no number
            of images, or with anything pickled.
    """
    arrays = _arrays(path)
    mean, covariance = (_checked(arrays, key, shape, path) for key, shape in _SHAPES.items())
    skew = np.abs(covariance - covariance.T).max()
    if skew > TOLERANCE * np.abs(covariance).max() or covariance.diagonal().min() < 0:
        raise DataError(
            f"{path}: sigma is no covariance: it must be symmetric, with a diagonal that is not negative"
        )
    facts = {key: _fact(arrays[key]) for key in FACTS if key in arrays}
    count = _count(facts.pop("count", None), path)
    if not (facts.get("name") or "").isprintable():
        facts["name"] = None  # it becomes a part of protocols, which are one line
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    mode = facts.pop("mode", None) or _mode_of(path)
    known = max(count, 2)  # an unknown number only has to give the covariance back
    moments = Moments(known, torch.from_numpy(mean), torch.from_numpy(covariance) * (known - 1))
    return Statistics(Features(count, None, moments), digest, mode, **facts)


def write_statistics(path: Path, features: Features, facts: dict[str, Any]) -> None:
    """Write mu, sigma and what is known of them, whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    gaussian = features.gaussian
    known = {key: np.array(str(value)) for key, value in facts.items() if value is not None}
    with atomic_write(path) as temporary, temporary.open("wb") as out:
        np.savez(out, mu=gaussian.mean.numpy(), sigma=gaussian.covariance.numpy(), **known)  # type: ignore[arg-type]


def is_readable(path: Path) -> bool:
    """Say whether a file holds statistics."""
    try:
        read_statistics(path)
    except DataError:
        return False
    return True


_SHAPES: dict[str, tuple[int, ...]] = {"mu": (SIZE,), "sigma": (SIZE, SIZE)}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
        if too_large := [key for key in (*_SHAPES, *FACTS) if sizes.get(key, 0) > MOST_BYTES]:
            raise DataError(f"{path}: `{too_large[0]}` is larger than statistics of {SIZE:,} features are")
        with np.load(path, allow_pickle=False) as opened:
            return {key: opened[key] for key in (*_SHAPES, *FACTS) if key in opened}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError) as bad:
        why = (str(bad) or type(bad).__name__).splitlines()[0]
        raise DataError(f"{path}: no .npz of statistics that can be read: {why}") from None


def _checked(arrays: dict[str, np.ndarray], key: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    array = arrays.get(key)
    if array is None:
        raise DataError(f"{path}: has no `{key}`; statistics are `mu` and `sigma`")
    if array.shape != shape or array.dtype.kind != "f":
        raise DataError(
            f"{path}: `{key}` is {array.dtype} {array.shape}; Inception features give floats {shape}"
        )
    if not np.isfinite(array).all():
        raise DataError(f"{path}: `{key}` holds values that are not finite")
    return array.astype(np.float64)


def _fact(array: np.ndarray) -> str | None:
    return str(array) if array.ndim == 0 and array.dtype.kind in "Uiu" else None


def _count(fact: str | None, path: Path) -> int:
    """Return the number of images, 0 where the file does not say."""
    if fact is None:
        return 0
    if not (fact.isascii() and fact.isdigit()):
        raise DataError(f"{path}: `count` is {fact[:20]!r}, which is no number of images")
    return int(fact)


def _mode_of(path: Path) -> str | None:
    """Return the mode in a name as clean-fid gives it, <data set>_<mode>_<split>_<resolution>.npz."""
    known = ("legacy_tensorflow", "legacy_pytorch", "clean")
    return next((mode for mode in known if f"_{mode}_" in path.stem), None)
