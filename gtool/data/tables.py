"""Tables with an image column, read through Hugging Face `datasets`: parquet files, saved sets, the hub.

Rows stay encoded until they are asked for. Local tables never touch the network. The hub is asked only after a short
probe, because the library takes 24 seconds and six retries to give up; a set in the library's cache is used from
there when the hub is out of reach.

The library is imported where it is used: it takes 1.7 s, and folders, zips and scenes do without it.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gtool.data.dataset import EncodedFiles, ImageDataset, Maps
from gtool.data.label_maps import read_label_names
from gtool.data.layout import choose_columns, choose_split
from gtool.data.names import SCENES, SHORT_NAMES, Place
from gtool.errors import DataError, NetworkError, did_you_mean
from gtool.io import hub
from gtool.io.files import cache_dir
from gtool.io.image import VERSION, Encoded, UnreadableImage
from gtool.io.image_files import visible_files

if TYPE_CHECKING:
    from datasets import Dataset

Tables = Mapping[str, "Dataset"]  # split -> rows
HUB_SECONDS = 3.0


def open_table(place: Place, split: str, columns: Mapping[str, str | None]) -> ImageDataset:
    """Return the images of a table's split.

    columns: those that the user named, by role, as of `gtool.data.layout.choose_columns`.

    Raises:
        DataError: no such split or column, no column of images, no table that can be read.
        NetworkError: the hub cannot be reached and the set is not cached.
    """
    tables, note = _load(place)
    name = place.repository or str(place.path)
    chosen, split_note = choose_split(tables, split, name)
    table = tables[chosen]
    types = {column: _type_of(feature) for column, feature in table.features.items()}
    column_of = choose_columns(types, columns, name)
    image, label = column_of["image"], column_of["label"]
    assert image is not None
    labels, class_names = (None, None) if label is None else _labels(tables, chosen, label)
    label_names = read_label_names(place.path) if place.path else None
    return ImageDataset(
        name=name,
        kind=place.kind,
        fingerprint=_fingerprint(place, table, chosen, image),
        files=_encoded_rows(table, image),
        labels=labels,
        class_names=class_names,
        # Maps are as old as the table, so that their column is fingerprint enough.
        maps={
            kind: Maps(
                column,
                _encoded_rows(table, column, f", {column}"),
                label_names if kind == "segmentation" else None,
            )
            for kind in ("segmentation", "depth")
            if (column := column_of[kind])
        },
        note=split_note or note,
    )


def _type_of(feature: Any) -> str:
    """Image, ClassLabel, the type of a plain value, or the name of a nested type."""
    if isinstance(feature, dict):
        return "encoded image" if "bytes" in feature else "struct"
    return str(feature.dtype) if type(feature).__name__ == "Value" else type(feature).__name__


def _encoded_rows(table: Dataset, column: str, what: str = "") -> EncodedFiles:
    """Return a column of encoded images: bytes, or records with `bytes` and `path`; what: of a row, in errors."""
    rows = table.select_columns([column]).with_format("arrow")  # values as they are stored

    def name(index: int) -> str:
        return f"row {index}{what}"

    def encoded(value: Any, index: int) -> Encoded:
        if not isinstance(value, dict):
            return value  # type: ignore[no-any-return]
        if value.get("bytes") is not None:
            return value["bytes"]  # type: ignore[no-any-return]
        path = value.get("path")
        if not path or Path(path).is_file():
            return Path(path) if path else None
        return UnreadableImage(name(index), f"no bytes, no file {path}")

    def load(indices: Sequence[int]) -> list[Encoded]:
        first, last = indices[0], indices[-1] + 1
        is_run = list(indices) == list(range(first, last))
        values = (rows[first:last] if is_run else rows[list(indices)]).column(0).to_pylist()
        return [encoded(value, index) for value, index in zip(values, indices, strict=True)]

    return EncodedFiles(len(rows), name, load)


def _labels(tables: Tables, split: str, column: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return the labels as numbers, -1 where there is none, and their names where they have any.

    Texts are numbered over all splits, so that a label means the same in each of them.
    """

    def values_of(table: Dataset) -> list[Any]:
        return table.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()  # type: ignore[no-any-return]

    values = values_of(tables[split])
    names = getattr(tables[split].features[column], "names", None)
    if any(isinstance(value, str) for value in values):
        tables_with = (table for table in tables.values() if column in table.features)
        names = sorted({value for table in tables_with for value in values_of(table) if value is not None})
        numbers = {name: number for number, name in enumerate(names)}
        values = [None if value is None else numbers[value] for value in values]
    return np.array([-1 if v is None else v for v in values], np.int64), tuple(names) if names else None


def _fingerprint(place: Place, table: Dataset, split: str, column: str) -> str:
    """Of local tables: names, sizes, times of the files. Of the hub: what the library's cache calls them."""
    lines = [f"pixels {VERSION}", split, column, str(place.config), str(len(table))]
    path = place.path
    if path is None:
        # owner___name / configuration / version / revision / file
        lines += ["/".join(Path(file["filename"]).parts[-5:]) for file in table.cache_files]
    else:
        if path.is_dir():
            files = sorted(visible_files(path, (".parquet", ".arrow")))
        else:
            files = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
        lines += [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
    return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def _load(place: Place) -> tuple[Tables, str | None]:
    """Return the splits of a table and a note when something else than asked for was taken."""
    import datasets

    name = place.repository
    with _quiet():
        if place.kind != "hub":
            return _load_local(place), None
        if not hub.is_offline() and hub.is_reachable():
            _require_repository(name)
            return _read(name, lambda: datasets.load_dataset(name, place.config)), None
        why = "offline" if hub.is_offline() else f"{hub.endpoint()} cannot be reached"
        missing = (
            f"data set `{name}`: no such folder, not in the local cache, and {why}; give a folder of images, "
            f"put its copy into a folder of $GTOOL_DATA, or use --dataset {SCENES}"
        )
        with _no_network():
            tables = _read(name, lambda: datasets.load_dataset(name, place.config), missing)
        note = f"{name}: the hub cannot be reached; its copy in the local cache is used"
        return tables, None if hub.is_offline() else note


def _load_local(place: Place) -> Tables:
    import datasets

    path, name = place.path, str(place.path)
    assert path is not None
    if place.kind == "arrow":
        return _read(name, lambda: datasets.load_from_disk(name))
    if path.is_dir() and _has_configurations(path):
        source = {"path": str(path.resolve()), "name": place.config}
    else:
        source = {"path": "parquet", "data_dir" if path.is_dir() else "data_files": name}
    with _no_network():
        return _read(name, lambda: datasets.load_dataset(**source, cache_dir=str(cache_dir() / "tables")))


def _has_configurations(folder: Path) -> bool:
    """Say whether a README in the hub's layout describes the tables beside it."""
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    header = readme.read_text(encoding="utf-8", errors="replace")[:65536].split("---")
    return len(header) > 2 and any(key in header[1] for key in ("configs:", "dataset_info:"))


def _require_repository(repository: str) -> None:
    """Ask the hub whether it has the data set, in a few seconds.

    Raises:
        DataError: it has none of this name, or only for some.
        NetworkError: it does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        HfApi(endpoint=hub.endpoint()).dataset_info(repository, timeout=HUB_SECONDS)
    except GatedRepoError:
        raise DataError(
            f"{repository}: its owner grants access on the hub; ask for it there, then run `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        known = [SCENES, *SHORT_NAMES, *(name.partition(":")[0] for name in SHORT_NAMES.values())]
        hint = did_you_mean(repository, known)
        raise DataError(
            f"data set `{repository}`: no such folder, and none of this name on the hub"
            f"{hint if hint.startswith('; did') else ''}"
        ) from None
    # Whatever else the client raises in this one call, with its HTTP library of the day: no connection.
    except Exception as bad:
        raise NetworkError(f"{repository}: {hub.endpoint()} does not answer: {_reason(bad)}") from None


def _read(name: str, load: Callable[[], Any], missing: str = "") -> Tables:
    """Call the library; what it raises becomes a DataError of one line, or a NetworkError where nothing is there.

    Returns split -> rows; a saved set without splits is one called `train`.
    """
    try:
        loaded = load()
    # Readers of tables from strangers raise errors of arrow, yaml, fsspec and their own.
    except Exception as bad:
        if missing and isinstance(bad, ConnectionError | FileNotFoundError):
            raise NetworkError(missing) from None
        reason = _reason(bad.__cause__ or bad, lines=2)  # the second names the choices
        if "onfig name is missing" in reason:
            reason += f"; name it after a colon, as in `{name}:configuration`"
        raise DataError(f"{name}: cannot be read: {reason}") from bad
    if isinstance(loaded, dict):
        return {str(split): rows for split, rows in loaded.items()}
    return {str(loaded.split or "train"): loaded}


def _reason(bad: BaseException, lines: int = 1) -> str:
    """Return the first lines of an error as one."""
    said = [line.strip() for line in str(bad).splitlines() if line.strip()]
    return " ".join(said[:lines])[:300] if said else type(bad).__name__


@contextmanager
def _no_network() -> Iterator[None]:
    """Keep the libraries from the network; they read the environment only once, when they are imported."""
    import datasets
    from huggingface_hub import constants

    previous = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = previous


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars, log lines and warnings of the libraries: what matters is raised."""
    import datasets

    disabled, had_bars = logging.root.manager.disable, not datasets.are_progress_bars_disabled()
    logging.disable(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        if had_bars:
            datasets.enable_progress_bars()
