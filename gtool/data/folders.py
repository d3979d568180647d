"""Folders and zips of image files; `gtool.data.layout` decides which of them are what.

The library `datasets` (imagefolder) was measured and does not serve here: docs/data.md has the figures.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gtool.data.dataset import EncodedFiles, ImageDataset, Maps
from gtool.data.label_maps import read_label_names
from gtool.data.layout import read_layout
from gtool.data.names import Place
from gtool.errors import DataError
from gtool.io.image import MAX_BYTES, VERSION, Encoded, UnreadableImage
from gtool.io.image_files import IMAGE_SUFFIXES, is_visible, visible_files

# By whether arrays count as images, as they do where pictures are scored, not where they are trained on.
_SUFFIXES = {False: IMAGE_SUFFIXES, True: IMAGE_SUFFIXES | {".npy"}}
Signature = Callable[[int], str]  # of a file by its number: changes when the file does


def open_files(place: Place, split: str, *, arrays: bool = False) -> ImageDataset:
    """Return the images of a folder or a zip in the order of their names, `arrays`: .npy files among them.

    Raises:
        DataError: no images, no such split, no zip.
    """
    assert place.path is not None
    name = str(place.path)
    suffixes = _SUFFIXES[arrays]
    if place.kind == "zip":
        names, files, signature = _zip_members(place.path, suffixes)
    else:
        names, files, signature = _folder_files(place.path, suffixes)
    if not names:
        text = f"{name}: no images found (looked for {' '.join(sorted(suffix[1:] for suffix in suffixes))})"
        if others := list_ignored(place, arrays=arrays):
            text += f"; what is there: {count_suffixes(others)}"
        if place.kind == "folder" and not all(map(is_visible, os.listdir(place.path))):
            text += "; hidden files and folders are not looked into"
        raise DataError(text)
    contents = read_layout(names, split, name)
    images = files.take(contents.images)
    label_names = read_label_names(place.path)
    maps = {}
    for kind, numbers in contents.maps.items():
        beside = _maps_beside(files, images, numbers, kind)
        lines = ((beside.name(i), "none" if n is None else signature(n)) for i, n in enumerate(numbers))
        maps[kind] = Maps(_fingerprint(kind, lines), beside, label_names)
    return ImageDataset(
        name=name,
        kind=place.kind,
        fingerprint=_fingerprint(f"pixels {VERSION}", ((names[n], signature(n)) for n in contents.images)),
        files=images,
        labels=contents.labels,
        class_names=contents.class_names,
        maps=maps,
        note=contents.note,
    )


def _folder_files(root: Path, suffixes: frozenset[str] | None) -> tuple[list[str], EncodedFiles, Signature]:
    names = sorted(path.relative_to(root).as_posix() for path in visible_files(root, suffixes))

    def signature(index: int) -> str:
        try:
            stat = (root / names[index]).stat()
        except OSError:
            return "none"
        return f"{stat.st_size} {stat.st_mtime_ns}"

    def load(indices: Sequence[int]) -> list[Encoded]:
        return [root / names[index] for index in indices]

    return names, EncodedFiles(len(names), names.__getitem__, load), signature


def _zip_members(path: Path, suffixes: frozenset[str] | None) -> tuple[list[str], EncodedFiles, Signature]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError) as bad:
        raise DataError(f"{path}: no zip that can be read: {bad}") from None
    entries = [
        entry
        for entry in entries
        if not entry.is_dir()
        and (suffixes is None or Path(entry.filename).suffix.lower() in suffixes)
        and all(is_visible(part) for part in entry.filename.split("/"))
    ]
    entries.sort(key=lambda entry: entry.filename)
    names = [entry.filename for entry in entries]
    own = threading.local()  # every thread reads through a handle of its own

    def load_one(index: int) -> Encoded:
        # The size is declared before a byte is unpacked, so a small file cannot fill the memory.
        if entries[index].file_size > MAX_BYTES:
            return UnreadableImage(names[index], f"larger than {MAX_BYTES >> 20} MB")
        if not hasattr(own, "archive"):
            own.archive = zipfile.ZipFile(path)
        try:
            return bytes(own.archive.read(entries[index]))
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError) as bad:
            return UnreadableImage(names[index], f"damaged: {bad}")

    files = EncodedFiles(len(names), names.__getitem__, lambda indices: list(map(load_one, indices)))
    return names, files, lambda index: f"{entries[index].file_size} {entries[index].CRC}"


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
    names, *_ = _zip_members(place.path, None) if place.kind == "zip" else _folder_files(place.path, None)
    return [name for name in names if Path(name).suffix.lower() not in _SUFFIXES[arrays]]


def count_suffixes(names: Sequence[str]) -> str:
    """Return `.txt 3, .mov 1`: how many files there are of each kind, the most frequent first."""
    counts = Counter(Path(name).suffix.lower() or "without a suffix" for name in names)
    return ", ".join(f"{suffix} {count:,}" for suffix, count in counts.most_common())
