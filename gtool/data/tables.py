"""Tables with an image column, as images: which columns are taken, and rows that stay encoded until asked for.

`gtool.data.read_tables` reads the tables themselves.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gtool.data.dataset import EncodedFiles, ImageDataset, Maps
from gtool.data.folder_names import sort_names
from gtool.data.label_maps import read_label_names
from gtool.data.layout import choose_split
from gtool.data.names import Place
from gtool.data.read_tables import Tables, files_of, read_tables
from gtool.errors import DataError, printable
from gtool.io.image import VERSION, Encoded, Stored, UnreadableImage
from gtool.io.image_files import is_url
from gtool.reading import reading, reason

if TYPE_CHECKING:
    from datasets import Dataset

# Of each role the names of columns that are looked for first; labels that hold images are label maps.
COLUMN_NAMES = {
    "image": ("img", "image"),
    "label": ("label", "labels", "fine_label"),
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


def open_table(place: Place, split: str, columns: Mapping[str, str | None]) -> ImageDataset:
    """Return the images of a table's split; columns as of `choose_columns`, errors as of `read_tables` too."""
    tables, note = read_tables(place)
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
    used = set(column_of.values())
    if label is None and (seen := next((c for c in COLUMN_NAMES["label"] if c in types.keys() - used), None)):
        held = "gives several for each row, and one is needed"
        if types[seen] not in _SEVERAL:
            held = f"holds {types[seen]}, and labels are whole numbers or texts"
        missing["class"] = f"column `{seen}` {held}"
    names = read_label_names(place.path) if place.path else None
    roots = _roots(place)
    maps = {kind: column for kind in ("segmentation", "depth") if (column := column_of[kind])}
    return ImageDataset(
        name=name,
        kind=place.kind,
        fingerprint=_fingerprint(place, table, chosen, image),
        files=_encoded_rows(table, image, roots),
        labels=labels,
        class_names=class_names,
        # Maps are as old as the table, so that their column is fingerprint enough.
        maps={
            kind: Maps(
                column,
                _encoded_rows(table, column, roots, f", {column}"),
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
# How the types of columns begin that can hold images, and labels.
_IMAGES = ("Image", "encoded image", "binary", "large_binary")
_LABELS = ("ClassLabel", "int", "uint", "bool", "string", "large_string")


def choose_columns(
    types: Mapping[str, str], requested: Mapping[str, str | None], name: str
) -> dict[str, str | None]:
    """Return the column of each role of `COLUMN_NAMES`, None where a table has none; an image column it must have.

    types: of the columns: `Image`, `encoded image` (a record with bytes), `ClassLabel`, or of plain values.
    requested: the columns that the user named, by role; None where one is to be found.

    Raises:
        DataError: no images, several columns of them that could be meant, or a column that was named and does not
            exist or holds something else.
    """
    chosen: dict[str, str | None] = {}
    listed = ", ".join(f"{column} ({type_})" for column, type_ in types.items())
    for role, usual in COLUMN_NAMES.items():
        taken_for = _LABELS if role == "label" else _IMAGES
        key = f"data.{role}_column"
        if column := requested.get(role):
            what = {"image": "images", "label": "labels"}.get(role, f"{role} maps")
            if column not in types:
                raise DataError(f"{name}: no column `{column}`, which {key} names; columns: {listed}")
            if not types[column].startswith(taken_for):
                raise DataError(
                    f"{name}: column `{column}`, which {key} names, holds no {what}; columns: {listed}"
                )
            chosen[role] = column
            continue
        taken = chosen.get("image")
        candidates = [c for c in usual if c in types and c != taken and types[c].startswith(taken_for)]
        if not candidates and role in ("image", "label"):
            first = "Image" if role == "image" else "ClassLabel"
            candidates = [c for c, type_ in types.items() if type_ == first]
        if not candidates and role == "image":
            candidates = [c for c, type_ in types.items() if type_.startswith(taken_for)]
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


def _type_of(feature: Any) -> str:
    """Image, ClassLabel, the type of a plain value, or the name of a nested type."""
    if isinstance(feature, dict):
        return "encoded image" if "bytes" in feature else "struct"
    return str(feature.dtype) if type(feature).__name__ == "Value" else type(feature).__name__


def _roots(place: Place) -> list[Path]:
    """Return the folders that rows of a table may name files in: its own, or the caches of the hub's libraries."""
    if place.path is not None:
        return [place.path if place.path.is_dir() else place.path.parent]
    import datasets
    from huggingface_hub import constants

    return [Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)]


def _find_below(roots: Sequence[Path], path: str) -> Path | None:
    """Return the file of a path that a row gives; None where it is a URL or leads out of the folders."""
    for root in roots:
        found = os.path.realpath(os.path.join(root, path))
        if not is_url(path) and Path(found).is_relative_to(os.path.realpath(root)):
            return Path(found)
    return None


def _encoded_rows(table: Dataset, column: str, roots: Sequence[Path], what: str = "") -> EncodedFiles:
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
            found, shown = _find_below(roots, path), printable(path)[:200]
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as bad:
            return UnreadableImage(name(index), f"no image: {reason(bad)}")
        if found is None:
            leads_out = "which leads out of the data set's folder"
            why = "a URL, and nothing is downloaded" if is_url(path) else leads_out
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
        files = files_of(path, (".parquet", ".arrow"))
        lines += [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
    return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
