"""Statistics of reference sets as others publish them: which there are, known without a network.

clean-fid 0.1.35 (its README) names a data set, a resolution and a split; gtool writes that as
`clean-fid:cifar10-32-train`. Each belongs to a mode, which is a part of the file's name. Nothing heavy is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gtool.errors import DataError, NetworkError, RecipeError, did_you_mean
from gtool.io.files import cache_dir

PREFIX = "clean-fid:"
SUFFIX = ".npz"
SERVER = "https://www.cs.cmu.edu/~clean-fid/stats"
ALL_MODES = ("clean", "legacy_tensorflow", "legacy_pytorch")
# What a mean and a covariance are enough for; everything else compares with images or their features.
METRICS = ("fid", "fid_infinity", "is")


class Asked(Protocol):
    """What of a command line concerns statistics."""

    @property
    def metrics(self) -> tuple[str, ...]: ...
    @property
    def reference(self) -> str | None: ...
    @property
    def paired(self) -> bool: ...


@dataclass(frozen=True)
class Published:
    """One set of statistics; `count` images, 0 where the publisher does not say."""

    dataset: str
    resolution: int
    split: str
    count: int = 0
    modes: tuple[str, ...] = ALL_MODES

    @property
    def name(self) -> str:
        return f"{PREFIX}{self.dataset}-{self.resolution}-{self.split}"

    def file(self, mode: str) -> str:
        return f"{self.dataset}_{mode}_{self.split}_{self.resolution}{SUFFIX}"


def _table() -> dict[str, Published]:
    found = [Published("cifar10", 32, "train", 50_000), Published("cifar10", 32, "test", 10_000)]
    for resolution in (256, 1024):
        found.append(Published("ffhq", resolution, "trainval", 50_000))
        found.append(Published("ffhq", resolution, "trainval70k", 70_000))
    for place in ("church", "horse", "cat"):
        full = ALL_MODES if place == "cat" else ("clean",)
        found.append(Published(f"lsun_{place}", 256, "train", 50_000))
        found.append(Published(f"lsun_{place}", 256, "trainfull", modes=full))
    found += [Published(f"afhq_{animal}", 512, "train") for animal in ("cat", "dog", "wild")]
    found += [Published("brecahad", 512, "train"), Published("metfaces", 1024, "train")]
    found += [Published(name, 256, "test") for name in ("horse2zebra", "cat2dog")]
    return {published.name: published for published in found}


PUBLISHED = _table()


def is_statistics(reference: str) -> bool:
    """Say whether a reference means statistics and not images."""
    return reference.startswith(PREFIX) or (
        Path(reference).suffix.lower() == SUFFIX and not Path(reference).is_dir()
    )


def check_statistics(reference: str, mode: str) -> None:
    """Refuse a name that nobody publishes, or not of this mode, and a file that is not there.

    Raises:
        DataError: no such file.
        RecipeError: no such name, or another mode.
    """
    if not reference.startswith(PREFIX):
        if not Path(reference).expanduser().is_file():
            raise DataError(f"{reference}: no such file (--reference)")
        return
    published = PUBLISHED.get(reference)
    if published is None:
        raise RecipeError(
            f"--reference {reference}: clean-fid publishes no such statistics{did_you_mean(reference, list(PUBLISHED))}"
        )
    if mode not in published.modes:
        raise RecipeError(
            f"--reference {reference} is published for --mode {' or '.join(published.modes)} only"
        )


def refuse_beyond_statistics(request: Asked) -> None:
    """Refuse what a mean and a covariance are not enough for, or have no use for.

    Raises:
        RecipeError: names the flags.
    """
    others = [f"--{name.replace('_', '-')}" for name in request.metrics if name not in METRICS]
    others += ["--paired"] if request.paired else []
    if others:
        raise RecipeError(
            f"{', '.join(others)}: needs the images of the reference, and {request.reference} holds their mean and "
            "covariance only; score --fid against it, or name the images"
        )
    for name in ("split", "export_reference"):
        if getattr(request, name) is not None:
            raise RecipeError(f"--{name.replace('_', '-')}: {request.reference} is statistics already")


def find_published(name: str, mode: str) -> Path:
    """Return the file of published statistics, downloaded once.

    Raises:
        NetworkError: not in the cache folder and not to be had.
    """
    from gtool.io.hub import is_offline, is_reachable
    from gtool.metrics.features.downloads import fetch
    from gtool.metrics.statistics import is_readable

    file = PUBLISHED[name].file(mode)
    target = cache_dir() / "published" / file
    if target.is_file() and is_readable(target):
        return target
    reason = "the environment asks for offline" if is_offline() else ""
    if not reason and not is_reachable(SERVER):
        reason = f"{SERVER.split('/')[2]} cannot be reached"
    if reason:
        raise NetworkError(
            f"{name}: {file} is not in {target.parent} and was not downloaded: {reason}; put the file there, or "
            "score against images (--reference FOLDER) or statistics of your own (--reference stats.npz)"
        )
    fetch(f"{SERVER}/{file}", target, is_readable)
    return target
