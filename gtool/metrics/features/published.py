"""Statistics of reference sets that clean-fid publishes: which there are, known without a network and torch.

clean-fid 0.1.35 (its README) names a data set, a resolution and a split; gtool writes that as
`clean-fid:cifar10-32-train`. Each belongs to a mode, which is a part of the file's name.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

from gtool.errors import DataError, RecipeError, did_you_mean
from gtool.reading import reading

PREFIX = "clean-fid:"
SUFFIX = ".npz"
MODES = ("clean", "legacy_tensorflow", "legacy_pytorch")


@dataclass(frozen=True)
class Published:
    """One set of statistics; `count` images, 0 where the publisher does not say."""

    dataset: str
    resolution: int
    split: str
    count: int = 0
    modes: tuple[str, ...] = MODES

    @property
    def name(self) -> str:
        return f"{PREFIX}{self.dataset}-{self.resolution}-{self.split}"

    def file(self, mode: str) -> str:
        return f"{self.dataset}_{mode}_{self.split}_{self.resolution}{SUFFIX}"


_TABLE = [
    Published("cifar10", 32, "train", 50_000),
    Published("cifar10", 32, "test", 10_000),
    Published("ffhq", 256, "trainval", 50_000),
    Published("ffhq", 256, "trainval70k", 70_000),
    Published("ffhq", 1024, "trainval", 50_000),
    Published("ffhq", 1024, "trainval70k", 70_000),
    Published("lsun_church", 256, "train", 50_000),
    Published("lsun_church", 256, "trainfull", modes=("clean",)),
    Published("lsun_horse", 256, "train", 50_000),
    Published("lsun_horse", 256, "trainfull", modes=("clean",)),
    Published("lsun_cat", 256, "train", 50_000),
    Published("lsun_cat", 256, "trainfull"),
    Published("afhq_cat", 512, "train"),
    Published("afhq_dog", 512, "train"),
    Published("afhq_wild", 512, "train"),
    Published("brecahad", 512, "train"),
    Published("metfaces", 1024, "train"),
    Published("horse2zebra", 256, "test"),
    Published("cat2dog", 256, "test"),
]
PUBLISHED = {published.name: published for published in _TABLE}


def is_statistics(reference: str) -> bool:
    """Say whether a reference means statistics and not images."""
    path = Path(reference)
    return reference.startswith(PREFIX) or (path.suffix.lower() == SUFFIX and not path.is_dir())


def check_statistics(reference: str, mode: str) -> None:
    """Refuse a name that nobody publishes, or not of this mode, and a file without mean and covariance."""
    if not reference.startswith(PREFIX):
        path = Path(reference).expanduser()
        if not path.is_file():
            raise DataError(f"{reference}: no such file (--reference)")
        with reading(path, ".npz"), zipfile.ZipFile(path) as archive:
            held = {name.removesuffix(".npy") for name in archive.namelist()}
        if missing := {"mu", "sigma"} - held:
            raise DataError(
                f"{reference}: has no `{min(missing)}`; statistics are `mu` and `sigma`, and images go into a folder "
                "or a zip"
            )
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
