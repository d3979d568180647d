"""What stands in the place of a reference's images: statistics, opened and written, or nothing at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.errors import RecipeError
from gtool.eval.image_sets import Stored, Wanted, open_stored
from gtool.metrics.features.collector import Features
from gtool.metrics.features.published import PREFIX, PUBLISHED, find_published, is_statistics
from gtool.metrics.features.weights import WeightsFile, are_same_weights
from gtool.metrics.statistics import Statistics, read_statistics, write_statistics

if TYPE_CHECKING:
    from gtool.eval.options import Request
    from gtool.eval.scores import Scorer


@dataclass(frozen=True)
class Summary:
    """A reference of which the mean and covariance are known, and nothing else."""

    name: str  # as in protocol strings
    key: dict[str, str | int]
    statistics: Statistics
    only_published: bool  # its network is the published one

    @property
    def count(self) -> int:
        """Images behind the statistics, 0 where nobody says."""
        return self.features.count

    @property
    def features(self) -> Features:
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


@dataclass(frozen=True)
class Nothing:
    """In the place of a reference, where no metric compares with one."""

    name: str = ""
    key: dict[str, str | int] = field(default_factory=lambda: {"source": "", "resolution": 0})
    count: int = 0


Reference = Stored | Summary | Nothing


def open_summary(request: Request) -> Summary:
    """Open the statistics that `--reference` means.

    Raises:
        RecipeError: a metric that needs images, or another mode than that of the statistics.
        DataError, NetworkError: the file cannot be read or had.
    """
    spec = str(request.reference)
    is_named = spec.startswith(PREFIX)
    path = find_published(spec, request.mode) if is_named else Path(spec).expanduser()
    found = read_statistics(path)
    if found.mode is None:
        console.notice(f"{spec}: does not say by which mode it was made; --mode {request.mode} is assumed")
    elif found.mode != request.mode:
        raise RecipeError(
            f"--reference {spec}: made by --mode {found.mode}, which --mode {request.mode} is not"
        )
    if is_named:
        count = PUBLISHED[spec].count
        found = Statistics(Features(count, None, found.features.moments), found.sha256, found.mode)
    name = spec if is_named else found.name or f"{path.stem}@{found.sha256[:8]}"
    source = found.fingerprint or found.sha256[:24]
    return Summary(name, {"source": source, "resolution": 0, "statistics": found.sha256}, found, is_named)


def open_reference(request: Request, wanted: Wanted, num: int | None) -> Reference:
    """Open what generated images are compared with.

    Raises:
        GToolError: of `open_summary` and `open_stored`.
    """
    if request.reference is not None and is_statistics(request.reference):
        return open_summary(request)
    return open_stored(wanted, num, request.seed)


def export_reference(scorer: Scorer, path: Path) -> dict[str, Any]:
    """Write the statistics of a scorer's reference; return what the file says of them.

    Raises:
        CheckpointError: the file cannot be written.
    """
    space, real = scorer.inception, scorer.real
    assert space is not None
    features = space.reference_features(real, scorer.request.batch_size)
    facts: dict[str, Any] = {"count": features.count, "mode": space.extractor.mode, "name": real.name}
    facts |= space.made_with | {"fingerprint": real.key["source"]}
    write_statistics(path, features, facts)
    console.notice(f"statistics of {real.name}, {features.count:,} images: {path}")
    return facts
