"""Means and covariances of Inception features as files: mu (2048,) and sigma (2048, 2048) in an .npz.

clean-fid, pytorch-fid and the authors of FID (TTUR) write these two arrays, and so does gtool, which adds what it
knows of them: number of images, mode, weights, name. Never unpickled; sizes are checked before anything is read.
"""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cleanfid
import numpy as np
import torch

from gtool import console
from gtool.errors import DataError, NetworkError, RecipeError
from gtool.io.files import atomic_write, cache_dir, digest_of
from gtool.io.image import read_array
from gtool.metrics.features.collector import Features
from gtool.metrics.features.inception_network import SIZE
from gtool.metrics.features.published import MODES, PREFIX, PUBLISHED
from gtool.metrics.features.weights import download
from gtool.metrics.frechet import Moments
from gtool.reading import reading

SERVER = "https://www.cs.cmu.edu/~clean-fid/stats"  # of cleanfid.features.get_reference_statistics
SHAPES: dict[str, tuple[int, ...]] = {"mu": (SIZE,), "sigma": (SIZE, SIZE)}
FACTS = ("count", "mode", "weights", "name", "fingerprint")
MOST_BYTES = SIZE * SIZE * 8 + 4096  # of one array in the file
TOLERANCE = 1e-4  # by which sigma may differ from its transpose, as a share of its largest entry


@dataclass(frozen=True)
class Statistics:
    """What a file holds; None or 0 for what it does not say."""

    features: Features  # moments alone; its count is that of the images, 0 where unknown
    sha256: str
    mode: str | None = None
    weights: str | None = None
    name: str | None = None
    fingerprint: str | None = None

    @property
    def key(self) -> dict[str, str | int]:
        """What records say of the reference."""
        return {"source": self.fingerprint or self.sha256[:24], "resolution": 0}


def open_statistics(spec: str, mode: str) -> Statistics:
    """Open the statistics that `--reference` means: an .npz file, or `clean-fid:NAME`; they have a name then.

    Raises:
        RecipeError: another mode than that of the statistics.
        DataError, NetworkError: the file cannot be read or had.
    """
    is_named = spec.startswith(PREFIX)
    path = find_published(spec, mode) if is_named else Path(spec).expanduser()
    found = read_statistics(path)
    if found.mode is None:
        console.notice(f"{spec}: does not say by which mode it was made; --mode {mode} is assumed")
    elif found.mode != mode:
        raise RecipeError(f"--reference {spec}: made by --mode {found.mode}, which --mode {mode} is not")
    if is_named:
        features = Features(PUBLISHED[spec].count, None, found.features.moments)
        return Statistics(features, found.sha256, found.mode, name=spec)
    return replace(found, name=found.name or f"{path.stem}@{found.sha256[:8]}")


def find_published(name: str, mode: str) -> Path:
    """Return the file of clean-fid's statistics: of our cache, of the folder that clean-fid keeps them in, or new.

    Raises:
        NetworkError: not here and not to be had.
    """
    file = PUBLISHED[name].file(mode)
    target = cache_dir() / "published" / file
    for path in (target, Path(str(cleanfid.__file__)).parent / "stats" / file):
        if path.is_file() and is_readable(path):
            return path
    try:
        return download(f"{SERVER}/{file}", target, is_readable)
    except NetworkError as bad:
        raise NetworkError(
            f"{name}: {file} is not in {target.parent} and was not downloaded: {bad}; put the file there, or "
            "score against images (--reference FOLDER) or statistics of your own (--reference stats.npz)"
        ) from None


def read_statistics(path: Path) -> Statistics:
    """Read a file; DataError where it is damaged, lacks mean or covariance of this size, or holds anything pickled."""
    arrays = _arrays(path)
    mean, covariance = (_checked(arrays, key, path) for key in SHAPES)
    skew = np.abs(covariance - covariance.T).max()
    if skew > TOLERANCE * np.abs(covariance).max() or covariance.diagonal().min() < 0:
        raise DataError(
            f"{path}: sigma is no covariance: it must be symmetric, with a diagonal that is not negative"
        )
    facts = {
        key: str(arrays[key])
        for key in FACTS
        if key in arrays and arrays[key].ndim == 0 and arrays[key].dtype.kind in "Uiu"
    }
    number = facts.pop("count", "0")
    if not (number.isascii() and number.isdigit() and len(number) < 16):
        raise DataError(f"{path}: `count` is {number[:20]!r}, which is no number of images")
    if not facts.get("name", "").isprintable():
        del facts["name"]  # it becomes a part of protocols, which are one line
    # In a name as clean-fid gives it, <data set>_<mode>_<split>_<resolution>.npz.
    named = next((mode for mode in reversed(MODES) if f"_{mode}_" in path.stem), None)
    mode = facts.pop("mode", None) or named
    known = max(int(number), 2)  # an unknown number only has to give the covariance back
    moments = Moments(known, torch.from_numpy(mean), torch.from_numpy(covariance) * (known - 1))
    return Statistics(Features(int(number), None, moments), digest_of(path), mode, **facts)


def write_statistics(path: Path, features: Features, facts: dict[str, Any]) -> None:
    """Write mu, sigma and what is known of them, whole or not at all; CheckpointError where that fails."""
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


def _arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with reading(path, ".npz"), zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            key = entry.filename.removesuffix(".npy")
            if key in (*SHAPES, *FACTS):
                if entry.file_size > MOST_BYTES:
                    raise DataError(f"{path}: `{key}` is larger than statistics of {SIZE:,} features are")
                with archive.open(entry) as member:
                    arrays[key] = read_array(member.read(MOST_BYTES))
    return arrays


def _checked(arrays: dict[str, np.ndarray], key: str, path: Path) -> np.ndarray:
    array, shape = arrays.get(key), SHAPES[key]
    if array is None:
        raise DataError(
            f"{path}: has no `{key}`; statistics are `mu` and `sigma` (images go into a folder or a zip)"
        )
    if array.shape != shape or array.dtype.kind != "f":
        raise DataError(
            f"{path}: `{key}` is {array.dtype} {array.shape}; Inception features give floats {shape}"
        )
    if not np.isfinite(array).all():
        raise DataError(f"{path}: `{key}` holds values that are not finite")
    return array.astype(np.float64)
