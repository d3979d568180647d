"""References without images: means and covariances of Inception features in files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gtool import console
from gtool.errors import RecipeError
from gtool.metrics.features.collector import Features
from gtool.metrics.features.published import PREFIX, PUBLISHED
from gtool.metrics.features.weights import WeightsFile, are_same_weights
from gtool.metrics.statistics import Statistics, find_published, read_statistics


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


def require_same_network(real: Statistics, weights: WeightsFile, dtype: str) -> None:
    """Raise RecipeError for statistics that were made with other weights, or in another precision."""
    is_other = real.weights is not None and not are_same_weights(real.weights, weights.sha256)
    if is_other or (str(real.name).startswith(PREFIX) and not weights.is_published):
        raise RecipeError(
            f"--reference {real.name}: made with other Inception weights than {weights.path}, "
            "so the two cannot be compared"
        )
    if (real.dtype or dtype) != dtype:
        raise RecipeError(f"--reference {real.name}: made from {real.dtype} features, not {dtype}")
