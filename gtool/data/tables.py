"""Tables with an image column, read through Hugging Face `datasets`: parquet files, saved sets, the hub.

Rows stay encoded until they are asked for. Columns are found by name and type, or named by the user.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gtool.data.label_names import read_names
from gtool.data.names import Place
from gtool.data.open import Columns, ImageSource, Maps
from gtool.data.splits import choose_split
from gtool.data.table_files import Tables, load_tables
from gtool.errors import DataError
from gtool.io.image import VERSION, Encoded, UnreadableImage
from gtool.io.image_files import visible_files

if TYPE_CHECKING:
    from datasets import Dataset

IMAGE_NAMES = ("img", "image")
LABEL_NAMES = ("label", "labels", "fine_label")
MAP_NAMES = {  # where they hold images
    "segmentation": (
        "segmentation",
        "annotation",
        "mask",
        "label_map",
        "semantic_segmentation",
        "label",
        "labels",
    ),
    "depth": ("depth", "depth_map"),
}


@dataclass(frozen=True)
class Column:
    """A column of encoded images: bytes, or records with `bytes` and `path`."""

    rows: Dataset  # with this column alone, in arrow format: values as they are stored
    what: str = ""  # of a row, in errors

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return f"row {index}{self.what}"

    def load(self, indices: Sequence[int]) -> list[Encoded]:
        first, last = indices[0], indices[-1] + 1
        is_run = last - first == len(indices) and list(indices) == list(range(first, last))
        table = self.rows[first:last] if is_run else self.rows[list(indices)]
        values = table.column(0).to_pylist()
        return [self._encoded(value, index) for value, index in zip(values, indices, strict=True)]

    def _encoded(self, value: Any, index: int) -> Encoded:
        if not isinstance(value, dict):
            return value  # type: ignore[no-any-return]
        if value.get("bytes") is not None:
            return value["bytes"]  # type: ignore[no-any-return]
        path = value.get("path")
        if not path:
            return None
        return (
            Path(path)
            if Path(path).is_file()
            else UnreadableImage(self.name(index), f"no bytes, no file {path}")
        )


def open_table(place: Place, dataset: str, split: str, columns: Columns, offline: bool) -> ImageSource:
    """Return the images of a table's split.

    Raises:
        DataError: no such split or column, no column of images, no table that can be read.
        NetworkError: the hub cannot be reached and the set is not cached.
    """
    tables, note = load_tables(place, offline)
    name = place.repository or str(place.path)
    chosen, split_note = choose_split(tables, split, name)
    table = tables[chosen]
    image = _image_column(table, columns.image, name)
    label = _label_column(table, columns.label, name)
    labels, class_names = (None, None) if label is None else _labels(tables, chosen, label)
    return ImageSource(
        name=name,
        kind=place.kind,
        fingerprint=_fingerprint(place, table, chosen, image),
        items=_column(table, image),
        labels=labels,
        class_names=class_names,
        maps=_maps(table, columns, image, name, place.path),
        note=split_note or note,
    )


def _column(table: Dataset, name: str, what: str = "") -> Column:
    return Column(table.select_columns([name]).with_format("arrow"), what)


def _maps(table: Dataset, columns: Columns, image: str, name: str, folder: Path | None) -> dict[str, Maps]:
    """Find the columns of label maps and of depth; both are as old as the table."""
    maps = {}
    for kind, wanted in (("segmentation", columns.segmentation), ("depth", columns.depth)):
        column = _map_column(table, kind, wanted, image, name)
        if column is not None:
            names = read_names(folder) if kind == "segmentation" and folder else None
            maps[kind] = Maps(column, names, _column(table, column, f", {column}"))
    return maps


def _fingerprint(place: Place, table: Dataset, split: str, column: str) -> str:
    """Of local tables: names, sizes, times of the files. Of the hub: what the library's cache calls them."""
    lines = [f"pixels {VERSION}", split, column, str(place.config), str(len(table))]
    if place.path is None:
        # owner___name / configuration / version / revision / file
        lines += ["/".join(Path(file["filename"]).parts[-5:]) for file in table.cache_files]
    else:
        for path in _table_files(place.path):
            stat = path.stat()
            lines.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def _table_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(visible_files(path, (".parquet", ".arrow")))
    return sorted(path.parent.glob(path.name)) if "*" in path.name else [path]


def _image_column(table: Dataset, wanted: str | None, name: str) -> str:
    features = table.features
    if wanted is not None:
        if _holds_images(_feature(features, wanted, name)):
            return wanted
        raise DataError(f"{name}: column `{wanted}` holds no images; columns: {_describe(features)}")
    candidates = [column for column in IMAGE_NAMES if column in features]
    candidates += [column for column, feature in features.items() if _kind(feature) == "Image"]
    candidates += list(features)
    for column in candidates:
        if _holds_images(features[column]):
            return column
    raise DataError(f"{name}: no column of images; columns: {_describe(features)}")


def _label_column(table: Dataset, wanted: str | None, name: str) -> str | None:
    features = table.features
    if wanted is not None:
        if _holds_labels(_feature(features, wanted, name)):
            return wanted
        raise DataError(f"{name}: column `{wanted}` holds no labels; columns: {_describe(features)}")
    candidates = [column for column in LABEL_NAMES if column in features]
    candidates += [column for column, feature in features.items() if _kind(feature) == "ClassLabel"]
    return next((column for column in candidates if _holds_labels(features[column])), None)


def _map_column(table: Dataset, kind: str, wanted: str | None, image: str, name: str) -> str | None:
    features = table.features
    if wanted is not None:
        if _holds_images(_feature(features, wanted, name)):
            return wanted
        raise DataError(f"{name}: column `{wanted}` holds no {kind} maps; columns: {_describe(features)}")
    known = (column for column in MAP_NAMES[kind] if column in features and column != image)
    return next((column for column in known if _holds_images(features[column])), None)


def _feature(features: Mapping[str, Any], column: str, name: str) -> Any:
    if column not in features:
        raise DataError(f"{name}: no column `{column}`; columns: {_describe(features)}")
    return features[column]


def _kind(feature: Any) -> str:
    """Image, ClassLabel, the type of a plain value, or the name of a nested type."""
    name = type(feature).__name__
    return str(feature.dtype) if name == "Value" else "struct" if name == "dict" else name


def _describe(features: Mapping[str, Any]) -> str:
    return ", ".join(f"{column} ({_kind(feature)})" for column, feature in features.items())


def _holds_images(feature: Any) -> bool:
    if isinstance(feature, dict):
        return "bytes" in feature
    return _kind(feature) in ("Image", "binary", "large_binary")


def _holds_labels(feature: Any) -> bool:
    return _kind(feature).startswith(("ClassLabel", "int", "uint", "bool", "string", "large_string"))


def _labels(tables: Tables, split: str, column: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return the labels as numbers, -1 where there is none, and their names where they have any.

    Texts are numbered over all splits, so that a label means the same in each of them.
    """
    values = _values(tables[split], column)
    names = getattr(tables[split].features[column], "names", None)
    if any(isinstance(value, str) for value in values):
        everywhere = {
            value for table in tables.values() if column in table.features for value in _values(table, column)
        }
        names = sorted(value for value in everywhere if isinstance(value, str))
        numbers = {name: number for number, name in enumerate(names)}
        values = [None if value is None else numbers[value] for value in values]
    labels = np.array([-1 if value is None else value for value in values], np.int64)
    return labels, tuple(names) if names else None


def _values(table: Dataset, column: str) -> list[Any]:
    return table.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()  # type: ignore[no-any-return]
