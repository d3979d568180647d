"""What a folder, a zip, a table or a hub set holds: splits, classes, and maps beside images. Decided here alone.

Names in, decisions out; nothing is opened, so every rule can be tested with a list of names.

Files, by their names relative to the folder or zip:
- folders at the top (below folders that all files share) that are called as splits (`train/`, `test/`, `val/` ...)
  are splits;
- where every image lies exactly one folder deep, in two folders or more, its folder is its class;
- folders of images with folders of maps beside them are pairs: `images/a.jpg` with `segmentations/a.png` or
  `depth/a.png`. They may lie below folders of splits or above them: an image and its map differ in this one folder
  and in the suffix alone.

Tables, by the names and types of their columns: `COLUMN_NAMES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from gtool.errors import DataError

_SAME_SPLIT = (
    frozenset(("train", "training")),
    frozenset(("validation", "valid", "val", "dev")),
    frozenset(("test", "testing")),
)
_SPLIT_NAMES = frozenset().union(*_SAME_SPLIT)
_FOLDERS = {
    "image": frozenset(("images", "image", "imgs", "img", "photos", "photo", "jpegimages")),
    "segmentation": frozenset(
        ("segmentations", "segmentation", "segmentationclass", "semantic", "seg", "annotations", "annotation")
    ).union(("masks", "mask", "labels", "label", "label_maps", "label_map", "labelmaps", "maps")),
    "depth": frozenset(("depth", "depths", "depth_maps", "depth_map")),
}
_MAP_SUFFIXES = frozenset((".png", ".tif", ".tiff", ".bmp", ".gif"))  # files without loss
# Of each role the names that are looked for first; labels that hold images are label maps.
COLUMN_NAMES = {
    "image": ("img", "image"),
    "label": ("label", "labels", "fine_label"),
    "segmentation": (
        *("segmentation", "annotation", "mask", "label_map", "semantic_segmentation", "label", "labels"),
    ),
    "depth": ("depth", "depth_map"),
}


def choose_split(available: Iterable[str], split: str, name: str) -> tuple[str, str | None]:
    """Return what the set calls the split that was asked for, and a note where its only one is taken instead.

    name: of the set, for messages.

    Raises:
        DataError: several splits, and none of them is the one asked for.
    """
    splits = sorted(available)
    lower = {found.lower(): found for found in splits}
    for group in ({split.lower()}, *(same for same in _SAME_SPLIT if split.lower() in same)):
        for found in sorted(group & lower.keys()):
            return lower[found], None
    if len(splits) == 1:
        return splits[0], f"{name}: no split `{split}`; its only one, `{splits[0]}`, is used"
    raise DataError(f"{name}: no split `{split}`; it has {', '.join(splits)}")


@dataclass(frozen=True)
class FolderContents:
    """What listed files are, by their numbers in the list."""

    images: list[int]  # of the split
    labels: np.ndarray | None = None  # int64, of the images
    class_names: tuple[str, ...] | None = None
    maps: dict[str, list[int | None]] = field(
        default_factory=dict
    )  # by kind: of each image; None without one
    note: str | None = None


def read_layout(names: Sequence[str], split: str, name: str) -> FolderContents:
    """Decide what the image files of a folder or zip are.

    Args:
        names: of the files, with slashes, relative to the folder or zip.
        split: that was asked for.
        name: of the set, for messages.

    Raises:
        DataError: several splits, and none of them is the one asked for.
    """
    images, paths, maps, others = _find_pairs(names)
    chosen, depth, note = _choose_split_folder(paths, split, name)
    labels, class_names = _find_classes([path[depth:] for path in paths], chosen)
    if others and note is None:
        note = f"{name}: {others:,} images that are not in its folders of images and maps are left out"
    maps = {kind: [numbers[index] for index in chosen] for kind, numbers in maps.items()}
    return FolderContents([images[index] for index in chosen], labels, class_names, maps, note)


Parts = tuple[str, ...]  # of a path


def _find_pairs(names: Sequence[str]) -> tuple[list[int], list[Parts], dict[str, list[int | None]], int]:
    """Return the images, their paths without the folder of images, their maps by kind, and how many files are neither.

    Maps count where half of the files in folders of images, or more, have one. Without pairs all files are images.
    """
    others = 0
    images: dict[int, Parts] = {}
    found: dict[str, dict[Parts, int]] = {}
    for number, name in enumerate(names):
        parts = tuple(name.split("/"))
        place, kind = _first_named_folder(parts)
        rest = parts[:place] + parts[place + 1 :]
        if kind is None:
            others += 1
        elif kind == "image":
            images[number] = rest
        elif PurePosixPath(name).suffix.lower() in _MAP_SUFFIXES:
            found.setdefault(kind, {}).setdefault(_without_suffix(rest), number)
    maps = {}
    for kind, files in found.items():
        numbers = [files.get(_without_suffix(rest)) for rest in images.values()]
        if images and 2 * numbers.count(None) <= len(numbers):
            maps[kind] = numbers
    if not maps:
        return list(range(len(names))), [tuple(name.split("/")) for name in names], {}, 0
    return list(images), list(images.values()), maps, others


def _first_named_folder(parts: Parts) -> tuple[int, str | None]:
    """Return the first folder of images or maps in a path, and which of them it is."""
    for place, part in enumerate(parts[:-1]):
        for kind, folders in _FOLDERS.items():
            if part.lower() in folders:
                return place, kind
    return 0, None


def _without_suffix(parts: Parts) -> Parts:
    return *parts[:-1], PurePosixPath(parts[-1]).stem


def _choose_split_folder(paths: list[Parts], split: str, name: str) -> tuple[list[int], int, str | None]:
    """Return which paths belong to the split, how deep the folders below the splits are, and a note.

    All belong to it where no folder is called as a split.
    """
    for depth in range(_num_shared_folders(paths) + 1):
        folders = {path[depth] for path in paths}
        if {folder.lower() for folder in folders} <= _SPLIT_NAMES and all(
            len(path) > depth + 1 for path in paths
        ):
            chosen, note = choose_split(folders, split, name)
            return [index for index, path in enumerate(paths) if path[depth] == chosen], depth + 1, note
    return list(range(len(paths))), 0, None


def _num_shared_folders(paths: Sequence[Parts]) -> int:
    """Count the folders that every path begins with."""
    count = 0
    for column in zip(*(path[:-1] for path in paths), strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count


def _find_classes(paths: list[Parts], chosen: list[int]) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Return labels and class names where every image lies one folder deep, in two folders or more.

    That is asked of all splits first, so that a label means the same in each, and then of the chosen one.
    """
    of_split = [paths[index] for index in chosen]
    for all_of_them in (paths, of_split):
        shared = _num_shared_folders(all_of_them)
        if all(len(path) == shared + 2 for path in all_of_them):
            names = tuple(sorted({path[shared] for path in all_of_them}))
            numbers = {name: number for number, name in enumerate(names)}
            return np.array([numbers[path[shared]] for path in of_split], np.int64), names
    return None, None


def choose_columns(
    types: Mapping[str, str], requested: Mapping[str, str | None], name: str
) -> dict[str, str | None]:
    """Return the column of each role of `COLUMN_NAMES`, None where a table has none; an image column it must have.

    Args:
        types: of the columns: `Image`, `encoded image` (a record with bytes), `ClassLabel`, or of plain values.
        requested: the columns that the user named, by role; None where one is to be found.
        name: of the set, for messages.

    Raises:
        DataError: no images, or a column that was named and does not exist or holds something else.
    """
    chosen: dict[str, str | None] = {}
    listed = ", ".join(f"{column} ({type_})" for column, type_ in types.items())
    for role, usual in COLUMN_NAMES.items():
        holds = _holds_labels if role == "label" else _holds_images
        if column := requested.get(role):
            if column not in types:
                raise DataError(f"{name}: no column `{column}`; columns: {listed}")
            if not holds(types[column]):
                what = {"image": "images", "label": "labels"}.get(role, f"{role} maps")
                raise DataError(f"{name}: column `{column}` holds no {what}; columns: {listed}")
            chosen[role] = column
            continue
        candidates = [column for column in usual if column in types]
        if role in ("image", "label"):
            first = "Image" if role == "image" else "ClassLabel"
            candidates += [column for column, type_ in types.items() if type_ == first]
        if role == "image":
            candidates += types
        taken = chosen.get("image")
        chosen[role] = next((c for c in candidates if c != taken and holds(types[c])), None)
    if chosen["image"] is None:
        raise DataError(f"{name}: no column of images; columns: {listed}")
    return chosen


def _holds_images(type_: str) -> bool:
    return type_ in ("Image", "encoded image", "binary", "large_binary")


def _holds_labels(type_: str) -> bool:
    return type_.startswith(("ClassLabel", "int", "uint", "bool", "string", "large_string"))
