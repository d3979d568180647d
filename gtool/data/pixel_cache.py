"""Images decoded and resized once into one memory-mapped array, or on access where that would be too large.

An entry of the cache (`gtool.data.entries`) is uint8 (N, 3, R, R), with notes that name what could not be read. Its
key is a hash of the source's fingerprint, the resolution and the crop rule. A set with label maps or depth maps is
an entry of its own that holds both arrays; a pair of which one half cannot be read is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gtool.data.entries import Entry, Rows, write_rows
from gtool.data.label_maps import KINDS, MAX_LABELS, MapSquare, ids_type, to_ids
from gtool.data.label_maps import VERSION as MAPS_VERSION
from gtool.data.lazy import LazyImages, Squares, in_order
from gtool.data.open import Source
from gtool.errors import DataError
from gtool.io.image import UnreadableImage, quiet_pillow

Progress = Callable[[int, int], None]
Stored = np.ndarray | LazyImages
CROPS = ("center", "fit")
CONDITIONS = ("none", "class", *KINDS)
_BLOCK = 32  # images that a thread decodes at a time; their encoded bytes are in memory together
_BLOCK_PIXELS = 1 << 22


class Unread(NamedTuple):
    """An image of the source that has no pixels, or no map."""

    place: int  # in the source
    name: str
    reason: str


class Pair(NamedTuple):
    """An image (3, R, R) and its map, where maps are wanted."""

    image: np.ndarray
    map: MapSquare | None


class Notes(NamedTuple):
    """What is known of an entry besides its arrays."""

    unread: list[Unread]
    num_labels: int | None  # of label maps


@dataclass(frozen=True)
class ImageSet:
    """Images of one resolution, ready to train on and to measure against, and what they are generated from.

    Arrays are not to be written to: memory maps, or decoded on access.
    """

    images: Stored  # uint8 (N, 3, R, R)
    labels: np.ndarray | None  # int64 (N,), -1 where unknown
    fingerprint: str
    skipped: list[tuple[str, str]] = field(default_factory=list)  # names and reasons of what cannot be read
    condition: str = "none"
    segmentations: Stored | None = None  # uint8 or uint16 (N, R, R): 0 to num_labels, which is "no label"
    depths: Stored | None = None  # uint16 (N, R, R): 0 the smallest of an image, 65535 the largest
    num_labels: int | None = None  # of classes or label maps, where these are the condition
    label_names: tuple[str, ...] | None = None  # of the first labels

    def __len__(self) -> int:
        return len(self.images)

    @property
    def condition_size(self) -> int:
        """How many ids a condition has: 1 for none, else one more than there are labels, for "no label".

        Raises:
            DataError: depth has no ids.
        """
        if self.condition == "depth":
            raise DataError("depth maps have no labels; they are turned into codes by a tokenizer of depth")
        return 1 if self.num_labels is None else self.num_labels + 1


def load_images(
    source: Source,
    resolution: int,
    *,
    crop: str = "center",
    budget_gb: float = 4.0,
    condition: str = "none",
    num_labels: int | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Return the images of a source as squares of `resolution` pixels; small ones are enlarged.

    Args:
        source: from `open_source`.
        resolution: pixels of a side.
        crop: `center` takes the largest centred square, `fit` squeezes the whole picture.
        budget_gb: the largest arrays to store, in 10^9 bytes. Above it every image is decoded once, to find
            those that cannot be, and again on access.
        condition: what is wanted beside the images: `none`, `class`, `segmentation` or `depth`.
        num_labels: of classes or label maps; None counts them.
        progress: called with the number of images done and of all.

    Raises:
        DataError: fewer than two images can be read, or the cache cannot be written; no labels or maps where they
            are wanted; a label beyond `num_labels`.
    """
    if crop not in CROPS:
        raise DataError(f"crop `{crop}` is unknown; use {' or '.join(CROPS)}")
    if condition not in CONDITIONS:
        raise DataError(f"condition `{condition}` is unknown; use one of {', '.join(CONDITIONS)}")
    if condition == "class":
        num_labels = _count_classes(source, num_labels)
    pixels = _PixelEntry(source, resolution, crop, condition, num_labels)
    images, maps, notes = pixels.open(budget_gb, progress)
    labels = source.labels
    if labels is not None:
        labels = np.delete(labels, [image.place for image in notes.unread])
    return ImageSet(
        images,
        labels,
        pixels.entry.key,
        [(image.name, image.reason) for image in notes.unread],
        condition=condition,
        segmentations=maps if condition == "segmentation" else None,
        depths=maps if condition == "depth" else None,
        num_labels=num_labels if condition == "class" else notes.num_labels,
        label_names=source.class_names if condition == "class" else pixels.names,
    )


def _count_classes(source: Source, num_labels: int | None) -> int:
    """Return how many classes there are.

    Raises:
        DataError: none at all, or more than `num_labels`.
    """
    if source.labels is None:
        raise DataError(
            f"{source.name}: no class labels; a column `label` or a folder for each class has them"
        )
    most = int(source.labels.max(initial=-1))
    if num_labels is not None and most >= num_labels:
        at = int(source.labels.argmax())
        raise DataError(
            f"{source.name}: image {at} has the label {most}, and data.num_labels = {num_labels} "
            f"ends at {num_labels - 1}"
        )
    return num_labels or max(most + 1, len(source.class_names or ()), 1)


class _PixelEntry:
    """The entry of a source's images, of one resolution and crop, with maps or without."""

    def __init__(
        self, source: Source, resolution: int, crop: str, condition: str, num_labels: int | None
    ) -> None:
        self.source = source
        self.resolution = resolution
        self.crop = crop
        self.kind = condition if condition in KINDS else None
        self.num_labels = num_labels if self.kind == "segmentation" else None
        self.names: tuple[str, ...] | None = None
        depends_on: tuple[str, ...] = (source.fingerprint, str(resolution), crop)
        if self.kind:
            maps = source.maps_of(self.kind)
            self.names = maps.names
            told = self.num_labels or f"at least {len(self.names or ())}"
            depends_on += (self.kind, maps.fingerprint, f"maps {MAPS_VERSION}", str(told))
        self.entry = Entry("pixels", source.name, str(resolution), depends_on)

    @property
    def size(self) -> int:
        """Bytes of the arrays while they are written."""
        return len(self.source) * self.resolution**2 * (5 if self.kind else 3)

    def open(self, budget_gb: float, progress: Progress | None) -> tuple[Stored, Stored | None, Notes]:
        """Return images, maps and notes, made first where they are not there."""
        if self.size > 1e9 * budget_gb:
            notes = self._check(progress)
            kept = np.delete(np.arange(len(self.source)), [image.place for image in notes.unread])
            side = self.resolution
            images = LazyImages(self._read_images, kept, (3, side, side), np.uint8)
            if self.kind is None:
                return images, None, notes
            dtype = np.uint16 if notes.num_labels is None else ids_type(notes.num_labels)
            return images, LazyImages(self._reader_of_maps(notes), kept, (side, side), dtype), notes
        found = self._find()
        if found is None:
            with self.entry.locked():
                # Another process may have made it while this one waited.
                found = self._find() or self._build(progress)
        return found

    def _read_images(self, block: list[int]) -> Squares:
        return self.source.read_squares(block, self.resolution, self.crop)

    def _reader_of_maps(self, notes: Notes) -> Callable[[list[int]], Squares]:
        def read(block: list[int]) -> Squares:
            maps = self.source.read_maps(block, self.resolution, self.crop, self.kind or "")
            return [m if isinstance(m, UnreadableImage) else _final(m.values, notes.num_labels) for m in maps]

        return read

    def _check(self, progress: Progress | None) -> Notes:
        """Return what cannot be read and how many labels there are, decoding everything the first time."""
        if self.source.is_drawn:
            drawn = len(self.names or ()) or None
            if self.kind and drawn:
                self._require_room(drawn - 1, 0)
            return Notes([], self.num_labels or drawn)
        notes = self._read_notes()
        if notes is None:
            with self.entry.locked():
                notes = self._read_notes()
                if notes is None:
                    notes = self._walk(None, None, progress)
                    self._write_notes(notes)
        return notes

    def _find(self) -> tuple[np.ndarray, np.ndarray | None, Notes] | None:
        notes = self._read_notes()
        if notes is None:
            return None
        count, side = len(self.source) - len(notes.unread), self.resolution
        images = self.entry.open_array((count, 3, side, side), (np.uint8,))
        if images is None or self.kind is None:
            return None if images is None else (images, None, notes)
        maps = self.entry.open_array((count, side, side), (np.uint8, np.uint16), self.kind)
        return None if maps is None else (images, maps, notes)

    def _build(self, progress: Progress | None) -> tuple[np.ndarray, np.ndarray | None, Notes]:
        self.entry.require_space(self.size, "the images", ", or data.cache_gb = 0 to decode on access")
        side = self.resolution
        with ExitStack() as files:
            images = files.enter_context(write_rows(self.entry.array(), (3, side, side), np.uint8))
            maps = None
            if self.kind:
                maps = files.enter_context(write_rows(self.entry.array(self.kind), (side, side), np.uint16))
            notes = self._walk(images, maps, progress)
            if maps is not None and (count := notes.num_labels) is not None:
                maps.convert(lambda labels: to_ids(labels, count), ids_type(count))
            self._write_notes(notes)
        found = self._find()
        if found is None:
            raise DataError(f"{self.entry.array()}: was written and cannot be read back; is the disk sound?")
        return found

    def _walk(self, images: Rows | None, maps: Rows | None, progress: Progress | None) -> Notes:
        """Decode everything once and write it where there is a place for it."""
        unread, largest = list[Unread](), -1
        for place, pair in enumerate(self._pairs(progress)):
            if isinstance(pair, UnreadableImage):
                unread.append(Unread(place, pair.name, pair.reason))
                continue
            if images is not None:
                images.append(pair.image[None])
            if pair.map is not None:
                if self.kind == "segmentation":
                    largest = max(largest, pair.map.largest)
                    self._require_room(pair.map.largest, place)
                if maps is not None:
                    maps.append(pair.map.values[None])
        self._require_two(unread)
        if self.kind != "segmentation":
            return Notes(unread, None)
        return Notes(unread, self.num_labels or max(largest + 1, len(self.names or ()), 1))

    def _require_room(self, label: int, place: int) -> None:
        most = self.num_labels or MAX_LABELS
        if label >= most:
            told = f"data.num_labels = {most}" if self.num_labels else "the most that there can be,"
            raise DataError(
                f"{self.source.name}: {self.source.name_of(place, self.kind)}: label {label}, "
                f"and {told} ends at {most - 1}"
            )

    def _pairs(self, progress: Progress | None) -> Iterator[Pair | UnreadableImage]:
        """Yield every image of the source in order, with its map, decoded by all cores."""
        total = len(self.source)
        step = max(1, min(_BLOCK, _BLOCK_PIXELS // self.resolution**2))
        done = 0

        def read(block: range) -> list[Pair | UnreadableImage]:
            places = list(block)
            images = self._read_images(places)
            if self.kind is None:
                return [i if isinstance(i, UnreadableImage) else Pair(i, None) for i in images]
            maps = self.source.read_maps(places, self.resolution, self.crop, self.kind)
            return [_pair(image, beside) for image, beside in zip(images, maps, strict=True)]

        blocks = (range(start, min(start + step, total)) for start in range(0, total, step))
        with quiet_pillow():
            for pairs in in_order(read, blocks):
                yield from pairs
                done += len(pairs)
                if progress:
                    progress(done, total)

    def _require_two(self, unread: list[Unread]) -> None:
        total, readable = len(self.source), len(self.source) - len(unread)
        if readable < 2:
            first = f"; {unread[0].name}: {unread[0].reason}" if unread else ""
            raise DataError(
                f"{self.source.name}: {readable} of {total} images can be read, and 2 are needed{first}"
            )

    def _read_notes(self) -> Notes | None:
        try:
            unread, num_labels = self.entry.read_notes()
            return Notes([Unread(*image) for image in unread], num_labels)
        except (TypeError, ValueError):  # missing, damaged, or of an earlier form: made again
            return None

    def _write_notes(self, notes: Notes) -> None:
        self.entry.write_notes(notes)


def _final(values: np.ndarray, num_labels: int | None) -> np.ndarray:
    """Labels as ids; depth, which has no labels, as it is."""
    return values if num_labels is None else to_ids(values, num_labels)


def _pair(image: Any, beside: Any) -> Pair | UnreadableImage:
    for half in (image, beside):
        if isinstance(half, UnreadableImage):
            return half
    return Pair(image, beside)
