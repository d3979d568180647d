"""Tables with an image column, read through Hugging Face `datasets`: parquet files, saved sets, the hub.

Rows stay encoded until they are asked for. Local tables never touch the network. The hub is asked only after a short
probe, because the library takes 24 seconds and six retries to give up; a set in the library's cache is used from
there when the hub is out of reach.

The library is imported where it is used: it takes 1.7 s, and folders, zips and scenes do without it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gtool.data.dataset import EncodedFiles, ImageDataset, Maps
from gtool.data.folder_names import sort_names
from gtool.data.label_maps import read_label_names
from gtool.data.layout import choose_split
from gtool.data.names import SCENES, SHORT_NAMES, Place
from gtool.errors import DataError, NetworkError, did_you_mean, printable
from gtool.io import hub
from gtool.io.files import cache_dir
from gtool.io.image import VERSION, Encoded, Stored, UnreadableImage
from gtool.io.image_files import is_url, visible_files
from gtool.reading import check_plain, limited, parse_json, read_bytes, reading, reason

if TYPE_CHECKING:
    from datasets import Dataset

Tables = Mapping[str, "Dataset"]  # split -> rows
HUB_SECONDS = 3.0
# Of tables on this disk while they are unpacked, above what the process has: columns can hold a value in a few bytes
# that a million rows share.
MOST_MEMORY, MOST_UNPACKED, LARGEST_RATIO, ROWS_AT_ONCE = 512 << 20, 256 << 20, 20, 100
MOST_CARD = 4 << 20  # bytes of a README
# Of each role the names of columns that are looked for first; labels that hold images are label maps.
COLUMN_NAMES = {
    "image": ("img", "image"),
    "label": ("label", "labels", "fine_label"),
    "segmentation": (
        *("segmentation", "annotation", "mask", "label_map", "semantic_segmentation", "label", "labels"),
    ),
    "depth": ("depth", "depth_map"),
}


def open_table(place: Place, split: str, columns: Mapping[str, str | None]) -> ImageDataset:
    """Return the images of a table's split.

    columns: those that the user named, by role, as of `choose_columns`.

    Raises:
        DataError: no such split or column, no column of images, no table that can be read.
        NetworkError: the hub cannot be reached and the set is not cached.
    """
    tables, note = _load(place)
    name = place.repository or str(place.path)
    chosen, split_note = choose_split(tables, split, name)
    table = tables[chosen]
    types = {column: _type_of(feature) for column, feature in table.features.items()}
    column_of, missing = choose_columns(types, columns, name), dict[str, str]()
    image, label = column_of["image"], column_of["label"]
    assert image is not None
    labels, class_names = None, None
    if label is not None:
        with reading(name, f"column `{label}` of labels"):
            labels, class_names = _labels(tables, chosen, label)
    if label is None and (
        several := next((c for c in COLUMN_NAMES["label"] if types.get(c) in _SEVERAL), None)
    ):
        missing["class"] = f"column `{several}` gives several for each row, and one is needed"
    names = read_label_names(place.path) if place.path else None
    inside = _Inside(place)
    maps = {kind: column for kind in ("segmentation", "depth") if (column := column_of[kind])}
    return ImageDataset(
        name=name,
        kind=place.kind,
        fingerprint=_fingerprint(place, table, chosen, image),
        files=_encoded_rows(table, image, inside),
        labels=labels,
        class_names=class_names,
        # Maps are as old as the table, so that their column is fingerprint enough.
        maps={
            kind: Maps(
                column,
                _encoded_rows(table, column, inside, f", {column}"),
                names if kind == "segmentation" else None,
            )
            for kind, column in maps.items()
        },
        split=chosen,
        other_splits=tuple(sorted(tables.keys() - {chosen})),
        labels_from=f"column {label}",
        notes=tuple(filter(None, (split_note, note))),
        missing=missing,
    )


_SEVERAL = ("List", "LargeList", "Sequence")


def choose_columns(
    types: Mapping[str, str], requested: Mapping[str, str | None], name: str
) -> dict[str, str | None]:
    """Return the column of each role of `COLUMN_NAMES`, None where a table has none; an image column it must have.

    Args:
        types: of the columns: `Image`, `encoded image` (a record with bytes), `ClassLabel`, or of plain values.
        requested: the columns that the user named, by role; None where one is to be found.
        name: of the set, for messages.

    Raises:
        DataError: no images, several columns of them that could be meant, or a column that was named and does not
            exist or holds something else.
    """
    chosen: dict[str, str | None] = {}
    listed = ", ".join(f"{column} ({type_})" for column, type_ in types.items())
    for role, usual in COLUMN_NAMES.items():
        holds = _holds_labels if role == "label" else _holds_images
        key = f"data.{role}_column"
        if column := requested.get(role):
            what = {"image": "images", "label": "labels"}.get(role, f"{role} maps")
            if column not in types:
                raise DataError(f"{name}: no column `{column}`, which {key} names; columns: {listed}")
            if not holds(types[column]):
                raise DataError(
                    f"{name}: column `{column}`, which {key} names, holds no {what}; columns: {listed}"
                )
            chosen[role] = column
            continue
        taken = chosen.get("image")
        candidates = [c for c in usual if c in types and c != taken and holds(types[c])]
        if not candidates and role in ("image", "label"):
            first = "Image" if role == "image" else "ClassLabel"
            candidates = [c for c, type_ in types.items() if type_ == first]
        if not candidates and role == "image":
            candidates = [c for c, type_ in types.items() if holds(type_)]
        if role == "image" and len(candidates) > 1:  # a photo beside maps
            candidates = [
                c
                for c in candidates
                if not any(c in names for names in COLUMN_NAMES.values() if names != usual)
            ]
        if role == "image" and len(candidates) != 1 and not set(candidates) & set(usual):
            why = (
                f"several columns of images ({', '.join(candidates)})"
                if candidates
                else "no column of images"
            )
            raise DataError(f"{name}: {why}; name one with {key}; columns: {listed}")
        chosen[role] = next(iter(candidates), None)
    return chosen


def _holds_images(type_: str) -> bool:
    return type_ in ("Image", "encoded image", "binary", "large_binary")


def _holds_labels(type_: str) -> bool:
    return type_.startswith(("ClassLabel", "int", "uint", "bool", "string", "large_string"))


def _type_of(feature: Any) -> str:
    """Image, ClassLabel, the type of a plain value, or the name of a nested type."""
    if isinstance(feature, dict):
        return "encoded image" if "bytes" in feature else "struct"
    return str(feature.dtype) if type(feature).__name__ == "Value" else type(feature).__name__


class _Inside:
    """The folders that rows of a table may name files in: its own, or the caches of the hub's libraries."""

    def __init__(self, place: Place) -> None:
        self.roots = [_own_folder(place.path)] if place.path else _caches()

    def find(self, path: str) -> Path | None:
        """Return the file of a path that a row gives; None where it is a URL or leads out of the folders."""
        for root in self.roots:
            found = os.path.realpath(os.path.join(root, path))
            if not is_url(path) and Path(found).is_relative_to(os.path.realpath(root)):
                return Path(found)
        return None


def _own_folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _caches() -> list[Path]:
    import datasets
    from huggingface_hub import constants

    return [Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)]


def _encoded_rows(table: Dataset, column: str, inside: _Inside, what: str = "") -> EncodedFiles:
    """Return a column of encoded images: bytes, or records with `bytes` and `path`; what: of a row, in errors."""
    rows = table.select_columns([column]).with_format("arrow")  # values as they are stored

    def name(index: int) -> str:
        return f"row {index}{what}"

    def encoded(value: Any, index: int) -> Encoded:
        try:
            path = None
            if hasattr(value.type, "fields"):
                path = value["path"].as_py() if value.is_valid and "path" in value else None
                value = value["bytes"] if value.is_valid else value
            if value.is_valid:
                content = value.as_buffer()
                return Stored(len(content), content.to_pybytes)
            if not path:
                return None
            found, shown = inside.find(path), printable(path)[:200]
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as bad:
            return UnreadableImage(name(index), f"no image: {reason(bad)}")
        if found is None:
            why = (
                "a URL, and nothing is downloaded"
                if is_url(path)
                else "which leads out of the data set's folder"
            )
            return UnreadableImage(name(index), f"no bytes, and its file is {shown}, {why}")
        return found if found.is_file() else UnreadableImage(name(index), f"no bytes, no file {shown}")

    def load(indices: Sequence[int]) -> list[Encoded]:
        first, last = indices[0], indices[-1] + 1
        is_run = list(indices) == list(range(first, last))
        values = (rows[first:last] if is_run else rows[list(indices)]).column(0)
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
        found = (value for table in tables_with for value in values_of(table) if value is not None)
        names = sort_names(found)
        numbers = {name: number for number, name in enumerate(names)}
        values = [None if value is None else numbers[value] for value in values]
    labels = np.array([-1 if v is None else v for v in values], np.int64)
    if names and labels.max(initial=-1) >= len(names):
        raise ValueError(f"label {labels.max()}, and {len(names)} names")
    return labels, tuple(map(str, names)) if names else None


def _fingerprint(place: Place, table: Dataset, split: str, column: str) -> str:
    """Of local tables: names, sizes, times of the files. Of the hub: what the library's cache calls them."""
    lines = [f"pixels {VERSION}", split, column, str(place.config), str(len(table))]
    path = place.path
    if path is None:
        # owner___name / configuration / version / revision / file
        lines += ["/".join(Path(file["filename"]).parts[-5:]) for file in table.cache_files]
    else:
        files = _files_of(path, (".parquet", ".arrow"))
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


def require_on_hub(place: Place) -> None:
    """Find out as `open_table` does, but without a download, whether the hub has a data set.

    One that gtool has a short name for is taken to be there where the hub cannot be asked.
    """
    if hub.is_reachable():
        _require_repository(place.repository)
    elif place.repository not in {name.partition(":")[0] for name in SHORT_NAMES.values()}:
        _load(place)


def _load_local(place: Place) -> Tables:
    import datasets

    path, name = place.path, str(place.path)
    assert path is not None
    if path.is_dir():
        if (path / ".huggingface.yaml").exists():
            raise DataError(f"{name}: .huggingface.yaml is not read; describe the tables in README.md")
        _require_own_files(_named_files(path), name)
    if place.kind == "arrow":
        with _bounded():
            return _read(name, lambda: datasets.load_from_disk(name))
    if path.is_dir() and _has_configurations(path):
        source = {"path": str(path.resolve()), "name": place.config}
    else:
        source = {"path": "parquet", "data_dir" if path.is_dir() else "data_files": name}
    on_disk = sum(file.stat().st_size for file in _files_of(path, (".parquet",)))
    cache = str(cache_dir() / "tables")
    with _no_network(), _bounded(MOST_UNPACKED + LARGEST_RATIO * on_disk):
        return _read(name, lambda: datasets.load_dataset(**source, cache_dir=cache, batch_size=ROWS_AT_ONCE))


@contextmanager
def _bounded(file: int | None = None) -> Iterator[None]:
    """Unpack tables within MOST_MEMORY and a file of so many bytes."""
    import pyarrow

    pool = pyarrow.default_memory_pool()
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # the others hold memory that they do not use
    try:
        with limited(MOST_MEMORY, file):
            yield
    finally:
        pyarrow.set_memory_pool(pool)


def _files_of(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of a local table: of a folder those with these suffixes, of a pattern those that fit."""
    if path.is_dir():
        return sorted(visible_files(path, suffixes))
    return sorted(path.parent.glob(path.name)) if "*" in path.name else [path]


def _card(folder: Path) -> Mapping[str, Any]:
    """Return the header of a README in the hub's layout; empty without one."""
    import yaml  # type: ignore[import-untyped]

    file = folder / "README.md"
    if not file.is_file():
        return {}
    with reading(file, "description of a data set"):
        text = read_bytes(file, MOST_CARD).decode("utf-8", "replace")
        header = re.match(r"\s*---[\r\n]+(.*?)[\r\n]+---(\s|$)", text, re.DOTALL)
        if header is None:
            return {}
        # An alias stands for as much as its writer likes.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(header[1], yaml.SafeLoader)):
            raise ValueError("its header has YAML aliases")
        card = yaml.safe_load(header[1]) or {}
        check_plain(card)
        return dict(card)


def _has_configurations(folder: Path) -> bool:
    """Say whether a README in the hub's layout describes the tables beside it."""
    return bool(_card(folder).keys() & {"configs", "dataset_info"})


def _named_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the files that a data set of a folder names, with the file that names them."""
    for name in _strings([_card(folder).get("configs")]):
        yield name, "README.md"
    for state in sorted(
        (*folder.glob("dataset_dict.json"), *folder.glob("state.json"), *folder.glob("*/state.json"))
    ):
        with reading(state, "description of a saved set"):
            values = parse_json(read_bytes(state))
            named = values.get("splits", []) + [file["filename"] for file in values.get("_data_files", [])]
        yield from ((name, state.relative_to(folder).as_posix()) for name in _strings(named))


def _strings(value: Any) -> Iterator[str]:
    """Yield all texts in nested lists and objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(part)


def _require_own_files(named: Iterable[tuple[str, str]], where: str) -> None:
    """Raise DataError for a file that lies outside of the data set that names it."""
    for name, by in named:
        parts = name.replace("\\", "/").split("/")
        if is_url(name) or name.startswith(("/", "~")) or ".." in parts or re.match("[A-Za-z]:", name):
            what = "a URL" if is_url(name) else "outside of its folder"
            raise DataError(f"{where}: {by} names {name}, {what}, which is not read")


def _require_repository(repository: str) -> None:
    """Ask the hub whether it has the data set, in a few seconds.

    Raises:
        DataError: it has none of this name, or only for some.
        NetworkError: it does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        card = HfApi(endpoint=hub.endpoint()).dataset_info(repository, timeout=HUB_SECONDS).card_data
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
    configs = card.get("configs") if card else None
    _require_own_files(((name, "README.md") for name in _strings(configs)), repository)


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
        cause = bad.__cause__ or bad
        said = _reason(cause, lines=2)  # the second names the choices
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno == errno.EFBIG):
            said = "unpacked, it is far larger than a file of its size may be"
        if "onfig name is missing" in said:
            said += f"; name it after a colon, as in `{name}:configuration`"
        raise DataError(f"{name}: cannot be read: {said}") from bad
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
