"""References without images: means and covariances in files, opened and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gtool import console
from gtool.errors import RecipeError
from gtool.metrics.features.collector import Features
from gtool.metrics.features.published import PREFIX, PUBLISHED
from gtool.metrics.features.weights import WeightsFile, are_same_weights
from gtool.metrics.statistics import Statistics, find_published, read_statistics


@dataclass(frozen=True)
class StatisticsReference:
    """A reference of which the mean and covariance of Inception features are known, and nothing else."""

    name: str  # as in protocol strings
    key: dict[str, str | int]
    statistics: Statistics
    only_published: bool  # its network is the published one

    @property
    def features(self) -> Features:
        """Moments alone; their count is that of the images, 0 where nobody says."""
        return self.statistics.features

    def require(self, weights: WeightsFile, dtype: str) -> None:
        """Refuse features of another network.

        Raises:
            RecipeError: these statistics were made with other weights, or in another precision.
        """
        made = self.statistics.weights
        if (made is not None and not are_same_weights(made, weights.sha256)) or (
            self.only_published and not weights.is_published
        ):
            raise RecipeError(
                f"--reference {self.name}: made with other Inception weights than {weights.path}, "
                "so the two cannot be compared"
            )
        if (self.statistics.dtype or dtype) != dtype:
            raise RecipeError(
                f"--reference {self.name}: made from {self.statistics.dtype} features, not {dtype}"
            )


def open_statistics(spec: str, mode: str) -> StatisticsReference:
    """Open the statistics that `--reference` means: an .npz file, or `clean-fid:NAME`.

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
        found = Statistics(features, found.sha256, found.mode)
    name = spec if is_named else found.name or f"{path.stem}@{found.sha256[:8]}"
    source = found.fingerprint or found.sha256[:24]
    key: dict[str, str | int] = {"source": source, "resolution": 0, "statistics": found.sha256}
    return StatisticsReference(name, key, found, is_named)
