"""Folders and zips of image files as sources.

Folders at the top that are called as splits (`train/`, `test/`, `val/`, ...) are splits. Where every image
lies exactly one folder deep, in two folders or more, the folder is its class. Folders of images with folders of
maps beside them are pairs (`gtool.data.pair_folders`): their images are the set.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gtool.data.label_names import read_names
from gtool.data.names import ARRAY_SUFFIX, Place
from gtool.data.open import ImageSource, Maps
from gtool.data.pair_folders import find_pairs
from gtool.data.splits import SPLIT_NAMES, choose_split
from gtool.errors import DataError
from gtool.io.image import MAX_BYTES, VERSION, Encoded, UnreadableImage
from gtool.io.image_files import IMAGE_SUFFIXES, is_visible, visible_files


@dataclass(frozen=True)
class Files:
    """Files below a folder; names are relative to it, with slashes."""

    root: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def only(self, numbers: Sequence[int]) -> Files:
        return Files(self.root, tuple(self.names[number] for number in numbers))

    def load(self, indices: Sequence[int]) -> list[Encoded]:
        return [self.root / self.names[index] for index in indices]

    def signature(self, index: int) -> str:
        """What changes when the file does."""
        try:
            stat = (self.root / self.names[index]).stat()
        except OSError:
            return "none"
        return f"{stat.st_size} {stat.st_mtime_ns}"


@dataclass(frozen=True)
class Members:
    """Files inside a zip; every thread reads through a handle of its own."""

    path: Path
    names: tuple[str, ...]
    entries: tuple[zipfile.ZipInfo, ...]
    _own: threading.local = field(default_factory=threading.local)

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def only(self, numbers: Sequence[int]) -> Members:
        names = tuple(self.names[number] for number in numbers)
        return Members(self.path, names, tuple(self.entries[number] for number in numbers), self._own)

    def load(self, indices: Sequence[int]) -> list[Encoded]:
        return [self._load(index) for index in indices]

    def _load(self, index: int) -> Encoded:
        # The size is declared before a byte is unpacked, so a small file cannot fill the memory.
        if self.entries[index].file_size > MAX_BYTES:
            return UnreadableImage(self.names[index], f"larger than {MAX_BYTES >> 20} MB")
        if not hasattr(self._own, "archive"):
            self._own.archive = zipfile.ZipFile(self.path)
        try:
            return bytes(self._own.archive.read(self.entries[index]))
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError) as bad:
            return UnreadableImage(self.names[index], f"damaged: {bad}")

    def signature(self, index: int) -> str:
        """What changes when the file does."""
        return f"{self.entries[index].file_size} {self.entries[index].CRC}"


@dataclass(frozen=True)
class Beside:
    """The maps of images among files, by the number of the image; some may have none."""

    files: Files | Members
    images: Files | Members
    numbers: tuple[int | None, ...]
    kind: str

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, index: int) -> str:
        number = self.numbers[index]
        return self.images.name(index) if number is None else self.files.name(number)

    def load(self, indices: Sequence[int]) -> list[Encoded]:
        return [self._load(index) for index in indices]

    def _load(self, index: int) -> Encoded:
        number = self.numbers[index]
        if number is None:
            what = "label map" if self.kind == "segmentation" else f"{self.kind} map"
            return UnreadableImage(self.name(index), f"no {what} of this name")
        return self.files.load([number])[0]

    def signature(self, index: int) -> str:
        """What changes when the file does."""
        number = self.numbers[index]
        return "none" if number is None else self.files.signature(number)


def open_files(place: Place, split: str, *, arrays: bool = False) -> ImageSource:
    """Return the images of a folder or a zip in the order of their names, `arrays`: .npy files among them.

    Raises:
        DataError: no images, no such split, no zip.
    """
    assert place.path is not None
    suffixes = _suffixes(arrays)
    found = _list_zip(place.path, suffixes) if place.kind == "zip" else _list_folder(place.path, suffixes)
    if not len(found):
        raise DataError(_nothing_found(place, suffixes, arrays=arrays))
    items, parts, maps, others = _without_maps(found)
    kept, depth, note = _of_split(parts, split, str(place.path))
    labels, class_names = _classes([path[depth:] for path in parts], kept)
    names = read_names(place.path)
    if others and note is None:
        note = f"{place.path}: {others:,} images that are not in its folders of images and maps are left out"
    return ImageSource(
        name=str(place.path),
        kind=place.kind,
        fingerprint=_fingerprint(f"pixels {VERSION}", items, kept),
        items=items,
        labels=labels,
        class_names=class_names,
        maps={kind: Maps(_fingerprint(kind, beside, kept), names, beside) for kind, beside in maps.items()},
        note=note,
        chosen=None if len(kept) == len(items) else np.array(kept, np.int64),
    )


def list_ignored(place: Place, *, arrays: bool = False) -> list[str]:
    """Return the names of the visible files of a folder or a zip that `open_files` passes over.

    Raises:
        DataError: no zip, or a folder that cannot be listed.
    """
    assert place.path is not None
    every = _list_zip(place.path, None) if place.kind == "zip" else _list_folder(place.path, None)
    return [name for name in every.names if Path(name).suffix.lower() not in _suffixes(arrays)]


def count_suffixes(names: Sequence[str]) -> str:
    """Return `.txt 3, .mov 1`: how many files there are of each kind, the most frequent first."""
    counts = Counter(Path(name).suffix.lower() or "without a suffix" for name in names)
    return ", ".join(f"{suffix} {count:,}" for suffix, count in counts.most_common())


def _suffixes(arrays: bool) -> frozenset[str]:
    return IMAGE_SUFFIXES | {ARRAY_SUFFIX} if arrays else IMAGE_SUFFIXES


def _nothing_found(place: Place, suffixes: frozenset[str], *, arrays: bool) -> str:
    text = f"{place.path}: no images found (looked for {' '.join(sorted(suffix[1:] for suffix in suffixes))})"
    if others := list_ignored(place, arrays=arrays):
        text += f"; what is there: {count_suffixes(others)}"
    path = place.path
    if path is not None and path.is_dir() and not all(map(is_visible, os.listdir(path))):
        text += "; hidden files and folders are not looked into"
    return text


def _without_maps(
    found: Files | Members,
) -> tuple[Files | Members, list[tuple[str, ...]], dict[str, Beside], int]:
    """Return the images of pair folders, their paths without the folder of images, their maps, and how many files more.

    A set without pairs comes back as it is.
    """
    pairs = find_pairs(found.names)
    if pairs is None:
        return found, [tuple(name.split("/")) for name in found.names], {}, 0
    items = found.only(pairs.images)
    maps = {kind: Beside(found, items, tuple(numbers), kind) for kind, numbers in pairs.maps.items()}
    return items, pairs.names, maps, pairs.others


def _of_split(parts: list[tuple[str, ...]], split: str, name: str) -> tuple[list[int], int, str | None]:
    """Return which paths belong to the split, and how deep the folders below the splits are.

    All belong to it where no folder at the top is called as one.
    """
    for depth in range(len(_shared_folders(parts)) + 1):
        folders = {path[depth] for path in parts}
        if {folder.lower() for folder in folders} <= SPLIT_NAMES and all(
            len(path) > depth + 1 for path in parts
        ):
            chosen, note = choose_split(folders, split, name)
            return [index for index, path in enumerate(parts) if path[depth] == chosen], depth + 1, note
    return list(range(len(parts))), 0, None


def _fingerprint(head: str, items: Files | Members | Beside, kept: list[int]) -> str:
    digest = hashlib.blake2b(f"{head}\n".encode(), digest_size=12)
    for index in kept:
        line = f"{items.name(index)}\0{items.signature(index)}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _shared_folders(parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the folders that every path begins with."""
    shared = []
    for column in zip(*(path[:-1] for path in parts), strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return tuple(shared)


def _classes(
    parts: list[tuple[str, ...]], kept: list[int]
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Return labels and class names where every image lies one folder deep, in two folders or more.

    That is asked of all splits first, so that a label means the same in each, and then of the chosen one.
    """
    chosen = [parts[index] for index in kept]
    for all_of_them in (parts, chosen):
        shared = len(_shared_folders(all_of_them))
        if all(len(path) == shared + 2 for path in all_of_them):
            names = tuple(sorted({path[shared] for path in all_of_them}))
            numbers = {name: number for number, name in enumerate(names)}
            return np.array([numbers[path[shared]] for path in chosen], np.int64), names
    return None, None


def _list_folder(root: Path, suffixes: frozenset[str] | None) -> Files:
    names = sorted(path.relative_to(root).as_posix() for path in visible_files(root, suffixes))
    return Files(root, tuple(names))


def _list_zip(path: Path, suffixes: frozenset[str] | None) -> Members:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError) as bad:
        raise DataError(f"{path}: no zip that can be read: {bad}") from None
    images = [
        entry
        for entry in entries
        if not entry.is_dir()
        and (suffixes is None or Path(entry.filename).suffix.lower() in suffixes)
        and all(is_visible(part) for part in entry.filename.split("/"))
    ]
    images.sort(key=lambda entry: entry.filename)
    return Members(path, tuple(entry.filename for entry in images), tuple(images))
