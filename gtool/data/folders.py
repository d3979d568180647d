"""Folders and zips of image files; `gtool.data.layout` decides which of them are what.

The library `datasets` (imagefolder) was measured and does not serve here: docs/data.md has the figures.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gtool.data.dataset import EncodedFiles, ImageDataset, Maps
from gtool.data.label_files import LABEL_FILES, read_label_files
from gtool.data.label_maps import read_label_names
from gtool.data.layout import count_of, read_layout
from gtool.data.names import Place
from gtool.errors import DataError, printable
from gtool.io.image import VERSION, Encoded, Stored, UnreadableImage, bytes_of
from gtool.io.image_files import IMAGE_SUFFIXES, is_visible, visible_names
from gtool.reading import reading

# By whether arrays count as images, as they do where pictures are scored, not where they are trained on.
_SUFFIXES = {False: IMAGE_SUFFIXES, True: IMAGE_SUFFIXES | {".npy"}}


def open_files(
    place: Place, split: str, *, arrays: bool = False, label_column: str | None = None, **asked: Any
) -> ImageDataset:
    """Return the images of a folder or a zip in the order of their names.

    arrays: .npy files are images too.
    label_column: of a file of labels beside the images.
    asked: what the user says of folders, as of `gtool.data.layout.read_layout`.

    Raises:
        DataError: no images, no such split, no zip, a layout that could mean two things.
    """
    assert place.path is not None
    name = str(place.path)
    all_files = _list_zip(place.path) if place.kind == "zip" else _list_folder(place.path)
    listed = all_files.take([i for i, n in enumerate(all_files.names) if _suffix(n) in _SUFFIXES[arrays]])
    if not listed.names:
        raise DataError(_nothing_found(place, all_files.names, _SUFFIXES[arrays]))
    contents = read_layout(listed.names, split, name, twins=arrays, **asked)
    images, files = listed.take(contents.images), listed.files
    label_names = read_label_names(place.path)
    maps = {}
    for kind, numbers in contents.maps.items():
        beside = _maps_beside(files, images.files, numbers, kind)
        lines = ((beside.name(i), "none" if n is None else listed.sign(n)) for i, n in enumerate(numbers))
        maps[kind] = Maps(
            _fingerprint(kind, lines),
            beside,
            label_names if kind == "segmentation" else None,
            len(numbers) - numbers.count(None),
        )
    found = ImageDataset(
        name=name,
        kind=place.kind,
        fingerprint=_fingerprint(
            f"pixels {VERSION}", ((n, images.sign(i)) for i, n in enumerate(images.names))
        ),
        files=images.files,
        labels=contents.labels,
        class_names=contents.class_names,
        maps=maps,
        split=contents.split or "",
        other_splits=contents.other_splits,
        notes=contents.notes,
        missing=contents.missing,
    )
    return _with_label_files(found, all_files, listed.names, images.names, label_column)


def _nothing_found(place: Place, names: Sequence[str], suffixes: frozenset[str]) -> str:
    text = f"{place.path}: no images found (looked for {' '.join(sorted(suffix[1:] for suffix in suffixes))})"
    if names:
        text += f"; what is there: {count_suffixes(names)}"
    if place.kind == "folder" and not all(map(is_visible, os.listdir(place.path))):
        text += "; hidden files and folders are not looked into"
    return text


def _with_label_files(
    dataset: ImageDataset, listed: _Listing, images: Sequence[str], chosen: Sequence[str], column: str | None
) -> ImageDataset:
    """Return the data set with the labels that files beside its images give, where there are such files."""
    places = [i for i, name in enumerate(listed.names) if name.rpartition("/")[2] in LABEL_FILES]
    if not places:
        if column is not None:
            raise DataError(
                f"{dataset.name}: no {', '.join(LABEL_FILES)} beside the images that could have a column `{column}`"
            )
        return dataset
    texts = {}
    for place, text in zip(places, listed.files.load(places), strict=True):
        name = listed.names[place]
        with bytes_of(text, f"{dataset.name}: {name}") as content:
            texts[name] = content
    try:
        found = read_label_files(texts, images, column)
    except DataError as bad:
        raise DataError(f"{dataset.name}: {bad}") from None
    if found.why:
        return replace(dataset, missing={**dataset.missing, "class": found.why})
    labels = np.array([found.of.get(name, -1) for name in chosen], np.int64)
    notes = dataset.notes
    if unknown := int((labels < 0).sum()):
        notes += (f"{count_of(unknown)} without a label",)
    if found.absent:
        first = ", ".join(printable(name)[:60] for name in found.absent[:2])
        more = ", ..." if len(found.absent) > 2 else ""
        notes += (f"labels of {count_of(len(found.absent))} that are not there ({first}{more})",)
    return replace(
        dataset, labels=labels, class_names=found.names, labels_from=" and ".join(texts), notes=notes
    )


@dataclass(frozen=True)
class _Listing:
    """The files of a folder or a zip in the order of their names; sign: changes when a file does."""

    names: list[str]
    files: EncodedFiles
    sign: Callable[[int], str]

    def take(self, numbers: Sequence[int]) -> _Listing:
        """Return the files of these numbers alone."""
        names = [self.names[number] for number in numbers]
        return _Listing(names, self.files.take(numbers), lambda index: self.sign(numbers[index]))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _list_folder(root: Path) -> _Listing:
    names = sorted(visible_names(root))

    def sign(index: int) -> str:
        try:
            stat = os.stat(f"{root}/{names[index]}")
        except OSError:
            return "none"
        return f"{stat.st_size} {stat.st_mtime_ns}"

    def load(indices: Sequence[int]) -> list[Encoded]:
        return [root / names[index] for index in indices]

    return _Listing(names, EncodedFiles(len(names), names.__getitem__, load), sign)


def _list_zip(path: Path) -> _Listing:
    with reading(path, "zip"), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    # Some programs write the names of Windows.
    named = [(entry.filename.replace("\\", "/").removeprefix("./").lstrip("/"), entry) for entry in entries]
    named = [(n, e) for n, e in named if n and not n.endswith("/") and all(map(is_visible, n.split("/")))]
    named.sort(key=lambda pair: pair[0])
    names = [name for name, _ in named]
    own = threading.local()  # every thread reads through a handle of its own

    def read(entry: zipfile.ZipInfo) -> bytes:
        if not hasattr(own, "archive"):
            own.archive = zipfile.ZipFile(path)
        return bytes(own.archive.read(entry))

    def load_one(index: int) -> Encoded:
        entry = named[index][1]
        # Other methods are unpacked by the library without a limit, whatever size is declared.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return UnreadableImage(names[index], "packed by another method than deflate; pack the zip anew")
        return Stored(entry.file_size, partial(read, entry))

    files = EncodedFiles(len(names), names.__getitem__, lambda indices: list(map(load_one, indices)))
    return _Listing(names, files, lambda index: f"{named[index][1].file_size} {named[index][1].CRC}")


def _maps_beside(
    files: EncodedFiles, images: EncodedFiles, numbers: Sequence[int | None], kind: str
) -> EncodedFiles:
    """Return the maps of images, by the number of the image; None is that of an image without one."""
    missing = f"no {'label map' if kind == 'segmentation' else f'{kind} map'} of this name"

    def name(index: int) -> str:
        number = numbers[index]
        return images.name(index) if number is None else files.name(number)

    def load_one(index: int) -> Encoded:
        number = numbers[index]
        return UnreadableImage(name(index), missing) if number is None else files.load([number])[0]

    return EncodedFiles(len(numbers), name, lambda indices: list(map(load_one, indices)))


def _fingerprint(head: str, lines: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.blake2b(f"{head}\n".encode(), digest_size=12)
    for name, signature in lines:
        digest.update(f"{name}\0{signature}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def list_ignored(place: Place, *, arrays: bool = False) -> list[str]:
    """Return the names of the visible files of a folder or a zip that `open_files` passes over."""
    assert place.path is not None
    listed = _list_zip(place.path) if place.kind == "zip" else _list_folder(place.path)
    return [name for name in listed.names if _suffix(name) not in _SUFFIXES[arrays]]


def count_suffixes(names: Sequence[str]) -> str:
    """Return `.txt 3, .mov 1`: how many files there are of each kind, the most frequent first."""
    counts = Counter(_suffix(name) or "without a suffix" for name in names)
    return ", ".join(f"{suffix} {count:,}" for suffix, count in counts.most_common())
