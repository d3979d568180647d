"""Folders that hold images and, beside them, maps of the same names: `images/` and `segmentations/` or `depth/`.

Other names that people use are known too, in any case. They may lie below folders of splits or above them, as in
`images/training/a.jpg` and `annotations/training/a.png`: an image and its map differ in this one folder and in
the suffix alone. Maps are files without loss.

Lists of paths in, numbers out: nothing is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

IMAGE_FOLDERS = frozenset(("images", "image", "imgs", "img", "photos", "photo", "jpegimages"))
MAP_FOLDERS = {
    "segmentation": frozenset(
        ("segmentations", "segmentation", "segmentationclass", "semantic", "seg", "annotations", "annotation")
    ).union(("masks", "mask", "labels", "label", "label_maps", "label_map", "labelmaps", "maps")),
    "depth": frozenset(("depth", "depths", "depth_maps", "depth_map")),
}
MAP_SUFFIXES = frozenset((".png", ".tif", ".tiff", ".bmp", ".gif"))


@dataclass(frozen=True)
class Pairs:
    """Which of the listed files are images and which are their maps."""

    images: list[int]
    names: list[tuple[str, ...]]  # of the images, in parts and without the folder of images
    maps: dict[str, list[int | None]]  # by kind: the map of each image; None where there is none of its name
    others: int  # files in neither kind of folder


def find_pairs(names: Sequence[str]) -> Pairs | None:
    """Return the pairs among file names with slashes, None where the folders are not of this kind.

    They are where half of the files in folders of images, or more, have a map of some kind. Files in other folders
    are no part of them.
    """
    others = 0
    images: dict[int, tuple[str, ...]] = {}
    found: dict[str, dict[tuple[str, ...], int]] = {}
    for number, name in enumerate(names):
        parts = tuple(name.split("/"))
        place, kind = _folder(parts)
        rest = parts[:place] + parts[place + 1 :]
        if kind is None:
            others += 1
        elif kind == "image":
            images[number] = rest
        elif PurePosixPath(name).suffix.lower() in MAP_SUFFIXES:
            found.setdefault(kind, {}).setdefault(_stem(rest), number)
    maps = {kind: [files.get(_stem(rest)) for rest in images.values()] for kind, files in found.items()}
    maps = {
        kind: numbers
        for kind, numbers in maps.items()
        if 2 * (len(numbers) - numbers.count(None)) >= len(numbers)
    }
    return Pairs(list(images), list(images.values()), maps, others) if images and maps else None


def _folder(parts: tuple[str, ...]) -> tuple[int, str | None]:
    """Return the first folder of images or maps in a path, and which of them it is."""
    for place, part in enumerate(parts[:-1]):
        if part.lower() in IMAGE_FOLDERS:
            return place, "image"
        for kind, folders in MAP_FOLDERS.items():
            if part.lower() in folders:
                return place, kind
    return 0, None


def _stem(parts: tuple[str, ...]) -> tuple[str, ...]:
    return *parts[:-1], PurePosixPath(parts[-1]).stem
