"""Labels in a file beside the images: `dataset.json` of StyleGAN, `metadata.jsonl` and `metadata.csv` of imagefolder.

dataset.json     {"labels": [["00000/img0.png", 3], ...]}, or an object of names
metadata.jsonl   {"file_name": "img0.png", "label": 3} a line; metadata.csv with the same columns

Names are relative to the folder of the file. Whole numbers are labels as they are; texts are numbered by their sorted
names, over all splits.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gtool.data.folder_names import sort_names
from gtool.data.label_maps import MAX_LABELS
from gtool.errors import DataError
from gtool.reading import parse_json, reason

LABEL_FILES = ("dataset.json", "metadata.jsonl", "metadata.csv")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "category", "target")


class FileLabels(NamedTuple):
    """The labels of images by name, -1 where there is none; `why` there are none at all, where that is so.

    absent: names of images that are labelled and are not there.
    """

    of: Mapping[str, int]
    names: tuple[str, ...] | None
    why: str = ""
    absent: tuple[str, ...] = ()


def read_label_files(texts: Mapping[str, bytes], images: Sequence[str], column: str | None) -> FileLabels:
    """Return what files, by their names, say of images of all splits; DataError where a named column is missing."""
    known, found, absent = set(images), dict[str, Any](), dict[str, None]()
    files = " and ".join(texts)
    try:
        for name, text in texts.items():
            place, slash, kind = name.rpartition("/")
            for image, label in _ROWS[kind](text.decode("utf-8-sig"), column):
                path = place + slash + str(image).replace("\\", "/").removeprefix("./")
                if label in (None, ""):
                    continue
                if path not in known:
                    absent[path] = None
                    continue
                if isinstance(label, list) and len(label) == 1:
                    label = label[0]
                if isinstance(label, list) or found.setdefault(path, label) != label:
                    return FileLabels({}, None, f"{name} gives {path} several labels, and one is needed")
        if found:
            return _number(found, files)._replace(absent=tuple(absent))
    except _NoLabelsError as bad:
        return FileLabels({}, None, f"{name}: {bad}")
    except (ValueError, TypeError, KeyError, AttributeError, csv.Error, RecursionError) as bad:
        return FileLabels({}, None, f"{name} cannot be read: {reason(bad)}")
    return FileLabels({}, None, f"{files} gives no label of any of the images")


class _NoLabelsError(Exception):
    """A sound file without labels."""


def _number(found: Mapping[str, Any], files: str) -> FileLabels:
    """Return labels as numbers: whole ones as they are, texts by their sorted names."""
    texts = {image: str(int(label) if isinstance(label, bool) else label) for image, label in found.items()}
    if all(text.isdecimal() for text in texts.values()):
        numbers = {image: int(text) for image, text in texts.items()}
        if max(numbers.values()) <= MAX_LABELS:
            return FileLabels(numbers, None)
    elif not all(isinstance(label, str | int) for label in found.values()):
        return FileLabels({}, None, f"{files}: labels are whole numbers or texts, one for each image")
    names = tuple(sort_names(texts.values()))
    number = {name: index for index, name in enumerate(names)}
    return FileLabels({image: number[text] for image, text in texts.items()}, names)


def _of_stylegan(text: str, column: str | None) -> Iterator[tuple[Any, Any]]:
    labels = parse_json(text).get("labels")
    if not labels:
        raise _NoLabelsError("holds no labels")
    return iter(labels.items() if isinstance(labels, dict) else labels)


def _of_lines(text: str, column: str | None) -> Iterator[tuple[Any, Any]]:
    return _of_rows([parse_json(line) for line in text.splitlines() if line.strip()], column)


def _of_csv(text: str, column: str | None) -> Iterator[tuple[Any, Any]]:
    return _of_rows(list(csv.DictReader(io.StringIO(text))), column)


def _of_rows(rows: Sequence[Mapping[str, Any]], column: str | None) -> Iterator[tuple[Any, Any]]:
    columns = list(dict.fromkeys(key for row in rows for key in row if isinstance(key, str)))
    lower = {name.lower(): name for name in reversed(columns)}
    listed = f"its columns: {', '.join(columns[:20])}"
    if column is not None and column not in columns:
        raise DataError(f"no column `{column}` of labels; {listed}")
    label = column or next((lower[name] for name in LABEL_COLUMNS if name in lower), None)
    if "file_name" not in lower or label is None:
        missing = "no column `file_name`" if label else "no column `label`, and data.label_column names none"
        raise _NoLabelsError(f"{missing}; {listed}")
    for row in rows:
        yield row.get(lower["file_name"]), row.get(label)


_ROWS = {"dataset.json": _of_stylegan, "metadata.jsonl": _of_lines, "metadata.csv": _of_csv}
