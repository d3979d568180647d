"""Where the name of a data set leads, decided before anything heavy is imported or sent over a network.

Order: a path that is written as one; `scenes`; the folders of $GTOOL_DATA; a path relative to here; the last part
of a hub id in the folders of $GTOOL_DATA; a short name or an id of the Hugging Face hub.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gtool.errors import DataError, did_you_mean
from gtool.io.image_files import IMAGE_SUFFIXES, is_url, visible_names
from gtool.reading import nearest_name

SCENES = "scenes"
# Short name -> hub id, with its configuration after a colon where the hub has several.
SHORT_NAMES = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "svhn": "ufldl-stanford/svhn:cropped_digits",
    "stl10": "tanganke/stl10",
    "tiny-imagenet": "zh-plus/tiny-imagenet",
    "food101": "ethz/food101",
    "celeba": "flwrlabs/celeba",
    "celeba-hq": "korexyz/celeba-hq-256x256",
    "lsun-church": "tglcourse/lsun_church_train",
    "lsun-bedroom": "pcuenq/lsun-bedrooms",
    "bedrooms": "pcuenq/lsun-bedrooms",
    "clevr": "dpdl-benchmark/clevr",
    "ffhq": "merkol/ffhq-256",
    "cityscapes": "Chris1/cityscapes",
}
ARCHIVES = (".zip", ".parquet")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

Kind = Literal["scenes", "folder", "zip", "parquet", "arrow", "hub"]


@dataclass(frozen=True)
class Place:
    """Where the images of a data set are."""

    kind: Kind
    path: Path | None = None  # of everything but scenes and hub
    repository: str = ""  # of hub
    config: str | None = None  # of hub and parquet: one of several configurations


def find_dataset(dataset: str | os.PathLike[str]) -> Place:
    """Return where a data set is; looks at the file system, never at the network.

    Raises:
        DataError: nothing of this name, or something that holds no data set.
    """
    dataset = os.fspath(dataset)
    if not dataset.strip():
        raise DataError("the data set has no name; give a folder, a known name, or scenes")
    if is_url(dataset):
        raise DataError(f"{dataset}: a URL; download it, or give a hub id (owner/name)")
    is_path = dataset.startswith((".", "~", os.sep, "/")) or dataset.endswith((os.sep, "/"))
    if is_path or Path(dataset).is_absolute():
        return _at(Path(dataset).expanduser(), dataset)
    if dataset == SCENES:
        return Place("scenes")
    name, _, config = dataset.partition(":")
    repository, _, usual = SHORT_NAMES.get(name.lower(), name).partition(":")
    for path in _in_data_folders(name, repository):
        return replace(_at(path, str(path)), config=config or None)
    if os.path.lexists(dataset) or "*" in dataset:
        return _at(Path(dataset), dataset)
    if _HUB_ID.fullmatch(repository):
        if Path(repository).suffix.lower() in IMAGE_SUFFIXES.union(ARCHIVES):
            raise DataError(f"{dataset}: no such file")
        return Place("hub", repository=repository, config=config or usual or None)
    hint = did_you_mean(dataset.lower(), [SCENES, *SHORT_NAMES])
    raise DataError(f"data set `{dataset}`: no such folder, file or known name{hint}")


def _in_data_folders(dataset: str, repository: str) -> Iterator[Path]:
    """Yield what $GTOOL_DATA holds under the name, the hub id or its last part, in its order.

    A name that is a path here too is not looked for by its last part: `photos` is another folder than `mine/photos`.
    """
    last = [] if os.path.lexists(dataset) else [repository.rpartition("/")[2]]
    names = list(dict.fromkeys([dataset, repository, *last]))
    for folder in filter(None, os.environ.get("GTOOL_DATA", "").split(os.pathsep)):
        for name in names:
            for suffix in ("", *ARCHIVES):
                path = Path(folder).expanduser() / f"{name}{suffix}"
                if path.is_dir() if suffix == "" else path.is_file():
                    yield path


def _at(path: Path, written: str) -> Place:
    if "*" in path.name and path.suffix.lower() == ".parquet":
        if not any(path.parent.glob(path.name)):
            raise DataError(f"{written}: no such file")
        return Place("parquet", path)
    base, colon, config = str(path).rpartition(":")
    if colon and not path.exists() and Path(base).exists():
        return replace(_at(Path(base), written), config=config)
    if not path.exists():
        kind = "file" if path.suffix.lower() in IMAGE_SUFFIXES.union(ARCHIVES) else "folder"
        raise DataError(f"{written}: no such {kind}{nearest_name(path)}")
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return Place("arrow", path)
        return Place("parquet" if _is_table(path, written) else "folder", path)
    suffix = path.suffix.lower()
    if suffix in ARCHIVES:
        return Place("zip" if suffix == ".zip" else "parquet", path)
    what = "a single image" if suffix in IMAGE_SUFFIXES else "no data set that can be read"
    raise DataError(f"{written}: {what}; give a folder of images, a .zip of them or a .parquet file")


def _is_table(folder: Path, written: str) -> bool:
    """Say whether a folder is one of parquet files, which a few pictures may lie beside.

    Raises:
        DataError: many pictures beside them, and no README that describes a table.
    """
    suffixes = Counter(os.path.splitext(name)[1].lower() for name in visible_names(folder))
    images = sum(suffixes[suffix] for suffix in IMAGE_SUFFIXES)
    if (
        suffixes[".parquet"]
        and images > max(10, suffixes[".parquet"])
        and not (folder / "README.md").is_file()
    ):
        raise DataError(
            f"{written}: {images:,} images and {suffixes['.parquet']:,} parquet files: name the folder of the images, "
            "or the .parquet files (`folder/*.parquet`)"
        )
    return suffixes[".parquet"] > 0
