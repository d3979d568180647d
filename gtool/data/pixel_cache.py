"""Images decoded and resized once into one memory-mapped array, or on access where that would be too large.

An entry of the cache (`gtool.io.cache`) is uint8 (N, 3, R, R), with notes that name what could not be read. Its
key is a hash of the data set's fingerprint, the resolution and the crop rule. A set with label maps or depth maps is
an entry of its own that holds both arrays; a pair of which one half cannot be read is left out.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gtool.data.dataset import ImageDataset
from gtool.data.label_maps import DEPTH_LEVELS, KINDS, MAX_LABELS, MapSquare, binary_labels, to_ids
from gtool.data.label_maps import VERSION as MAPS_VERSION
from gtool.data.layout import count_of
from gtool.data.threads import count_workers, in_order
from gtool.errors import DataError
from gtool.io.cache import CacheEntry, RowWriter, write_rows
from gtool.io.image import UnreadableImage, quiet_pillow

Progress = Callable[[int, int], None]
CROPS = ("center", "fit")
CONDITIONS = ("none", "class", *KINDS)
_BLOCK = 32  # images that a thread decodes at a time; their encoded bytes are in memory together
_BLOCK_PIXELS = 1 << 22


class Notes(NamedTuple):
    """What is known of an entry besides its arrays."""

    unread: list[tuple[int, str, str]]  # place in the data set, name, reason: images without pixels or map
    num_labels: int | None  # of label maps
    is_binary: bool = False  # whether label maps hold 0 and 255 alone, which are then two labels

    @property
    def places(self) -> list[int]:
        return [place for place, _, _ in self.unread]


class DecodedOnAccess:
    """Looks like an array (N, ...), of images or maps, and decodes what is indexed, by all cores."""

    def __init__(
        self,
        read: Callable[[list[int]], list[np.ndarray | UnreadableImage]],
        kept: np.ndarray,
        shape: tuple[int, ...],
        dtype: Any,
    ) -> None:
        """Read rows of one shape and type; `kept` says which of the data set each of them is."""
        self.shape = (len(kept), *shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(dtype)
        self._read = read
        self._kept = kept
        self._pool = ThreadPoolExecutor(count_workers(), thread_name_prefix="decode")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return one row for a number, (n, ...) for a slice or numbers; UnreadableImage for one that has changed."""
        chosen = self._kept[key]
        places = np.atleast_1d(chosen).tolist()
        size = max(1, -(-len(places) // (2 * count_workers())))
        blocks = [places[start : start + size] for start in range(0, len(places), size)]
        rows = np.empty((len(places), *self.shape[1:]), self.dtype)
        row = 0
        for block in self._pool.map(self._read, blocks):
            for square in block:
                if isinstance(square, UnreadableImage):
                    raise square
                rows[row] = square
                row += 1
        return rows if np.ndim(chosen) else rows[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


Stored = np.ndarray | DecodedOnAccess


@dataclass(frozen=True)
class ImageArrays:
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
    is_binary: bool = False  # label maps hold 0 and 255 alone, which are the labels 0 and 1

    def __len__(self) -> int:
        return len(self.images)

    @property
    def condition_size(self) -> int:
        """How many ids a condition has: 1 for none, else one more than there are labels or levels, for "no label"."""
        if self.condition == "depth":
            return DEPTH_LEVELS + 1
        return 1 if self.num_labels is None else self.num_labels + 1


def load_images(
    dataset: ImageDataset,
    resolution: int,
    *,
    crop: str = "center",
    budget_gb: float = 4.0,
    condition: str = "none",
    num_labels: int | None = None,
    progress: Progress | None = None,
) -> ImageArrays:
    """Return the images of a data set as squares of `resolution` pixels; small ones are enlarged.

    crop: `center` takes the largest centred square, `fit` squeezes the whole picture.
    budget_gb: the largest arrays to store, in 10^9 bytes. Above it every image is decoded once, to find those that
        cannot be, and again on access.
    condition: what is loaded beside the images: `none`, `class`, `segmentation` or `depth`.
    num_labels: of classes or label maps; None counts them.

    Raises:
        DataError: fewer than two images can be read, or the cache cannot be written; no labels or maps that the
            condition needs; a label beyond `num_labels`.
    """
    if crop not in CROPS:
        raise DataError(f"crop `{crop}` is unknown; use {' or '.join(CROPS)}")
    if condition not in CONDITIONS:
        raise DataError(f"condition `{condition}` is unknown; use one of {', '.join(CONDITIONS)}")
    if condition == "class":
        num_labels = _count_classes(dataset, num_labels)
    kind = condition if condition in KINDS else None
    squares = _Squares(dataset, resolution, crop, kind, num_labels if kind == "segmentation" else None)
    images, maps, notes = squares.load(budget_gb, progress)
    labels = dataset.labels
    if labels is not None:
        labels = np.delete(labels, notes.places)
    return ImageArrays(
        images,
        labels,
        squares.entry.key,
        [(name, reason) for _, name, reason in notes.unread],
        condition=condition,
        segmentations=maps if condition == "segmentation" else None,
        depths=maps if condition == "depth" else None,
        num_labels=num_labels if condition == "class" else notes.num_labels,
        label_names=dataset.class_names if condition == "class" else squares.label_names,
        is_binary=notes.is_binary,
    )


def _count_classes(dataset: ImageDataset, num_labels: int | None) -> int:
    """Return how many classes there are; DataError for none at all, or more than `num_labels`."""
    dataset.require("class")
    assert dataset.labels is not None
    most = int(dataset.labels.max(initial=-1))
    if num_labels is not None and most >= num_labels:
        at = int(dataset.labels.argmax())
        raise DataError(
            f"{dataset.name}: image {at} has the label {most}, and data.num_labels = {num_labels} "
            f"ends at {num_labels - 1}"
        )
    return num_labels or max(most + 1, len(dataset.class_names or ()), 1)


class _Squares:
    """The images of a data set as squares of one resolution and crop, with maps of a kind or without."""

    def __init__(
        self, dataset: ImageDataset, resolution: int, crop: str, kind: str | None, num_labels: int | None
    ) -> None:
        self.dataset = dataset
        self.resolution = resolution
        self.crop = crop
        self.kind = kind
        self.num_labels = num_labels  # of label maps, where known before
        self.label_names: tuple[str, ...] | None = None
        depends_on: tuple[str, ...] = (dataset.fingerprint, str(resolution), crop)
        if kind:
            maps = dataset.maps_of(kind)
            self.label_names = maps.label_names
            known = num_labels or f"at least {len(self.label_names or ())}"
            depends_on += (kind, maps.fingerprint, f"maps {MAPS_VERSION}", str(known))
        self.entry = CacheEntry("pixels", dataset.name, str(resolution), depends_on)

    def load(self, budget_gb: float, progress: Progress | None) -> tuple[Stored, Stored | None, Notes]:
        """Return images, maps and notes: mapped from the cache, made first where they are not there, or on access."""
        side, total = self.resolution, len(self.dataset)
        size = total * side**2 * (5 if self.kind else 3)  # bytes of the arrays while they are written
        if size <= 1e9 * budget_gb:
            return self.entry.get(self._find, lambda: self._build(size, progress))
        notes = self.entry.get(
            self._read_notes, lambda: self.entry.write_notes(self._decode_all(None, None, progress))
        )
        if self.dataset.is_drawn and self.kind:
            self._check_label(len(self.label_names or ()) - 1, 0)
        kept = np.delete(np.arange(total), notes.places)
        images = DecodedOnAccess(self._read_images, kept, (3, side, side), np.uint8)
        if self.kind is None:
            return images, None, notes

        def read_maps(block: list[int]) -> list[np.ndarray | UnreadableImage]:
            return [
                m if isinstance(m, UnreadableImage) else _ids(m.values, notes) for m in self._read_maps(block)
            ]

        dtype = _ids(np.zeros(1, np.uint16), notes).dtype
        return images, DecodedOnAccess(read_maps, kept, (side, side), dtype), notes

    def _read_images(self, block: list[int]) -> list[np.ndarray | UnreadableImage]:
        return self.dataset.read_squares(block, self.resolution, self.crop)

    def _read_maps(self, block: list[int]) -> list[MapSquare | UnreadableImage]:
        return self.dataset.read_maps(block, self.resolution, self.crop, self.kind or "")

    def _find(self) -> tuple[np.ndarray, np.ndarray | None, Notes] | None:
        notes = self._read_notes()
        if notes is None:
            return None
        count, side = len(self.dataset) - len(notes.unread), self.resolution
        images, maps = self.entry.open_array((count, 3, side, side), np.uint8), None
        if self.kind:
            maps = self.entry.open_array((count, side, side), np.uint8, np.uint16, part=self.kind)
        return None if images is None or (self.kind and maps is None) else (images, maps, notes)

    def _build(self, size: int, progress: Progress | None) -> None:
        self.entry.require_space(size, "the images", ", or data.cache_gb = 0 to decode on access")
        side, maps = self.resolution, None
        with ExitStack() as files:
            images = files.enter_context(write_rows(self.entry.array(), (3, side, side), np.uint8))
            if self.kind:
                maps = files.enter_context(write_rows(self.entry.array(self.kind), (side, side), np.uint16))
            notes = self._decode_all(images, maps, progress)
            if maps is not None:
                maps.convert(lambda values: _ids(values, notes))
            self.entry.write_notes(notes)

    def _read_notes(self) -> Notes | None:
        if self.dataset.is_drawn:  # always readable, and the number of labels is known
            return Notes([], self.num_labels or len(self.label_names or ()) or None)
        try:
            unread, num_labels, *is_binary = self.entry.read_notes()
            return Notes(
                [(int(p), str(name), str(why)) for p, name, why in unread], num_labels, is_binary == [True]
            )
        except (TypeError, ValueError):  # missing, damaged, or of an earlier form: made again
            return None

    def _decode_all(
        self, images: RowWriter | None, maps: RowWriter | None, progress: Progress | None
    ) -> Notes:
        """Decode everything once and write it where there is a place for it; two images must be readable."""
        unread, largest, has_unlabelled = list[tuple[int, str, str]](), -1, False
        total, name = len(self.dataset), self.dataset.name
        for place, (image, square) in enumerate(self._pairs()):
            if progress and (place + 1 == total or place % _BLOCK == _BLOCK - 1):
                progress(place + 1, total)
            bad = next((half for half in (image, square) if isinstance(half, UnreadableImage)), None)
            if bad is not None:
                unread.append((place, bad.name, bad.reason))
                continue
            if square is not None and self.kind == "segmentation":
                largest = max(largest, square.largest)
                has_unlabelled |= square.has_unlabelled
                self._check_label(square.largest, place)
            if square is not None and maps is not None:
                maps.append(square.values[None])
            if images is not None:
                images.append(image[None])
        if total - len(unread) < 2:
            first = f"; {unread[0][1]}: {unread[0][2]}" if unread else ""
            raise DataError(
                f"{name}: {total - len(unread)} of {count_of(total)} can be read, and 2 are needed{first}"
            )
        if self.kind != "segmentation":
            return Notes(unread, None)
        most = self.num_labels or len(self.label_names or ())  # 0: any number
        if largest < 1 and has_unlabelled and most != 1:
            return Notes(unread, max(most, 2), is_binary=True)
        return Notes(unread, self.num_labels or max(largest + 1, most, 1))

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        """Yield every image of the data set in order, with its map, decoded by all cores, or why it cannot be."""
        total = len(self.dataset)
        step = max(1, min(_BLOCK, _BLOCK_PIXELS // self.resolution**2))

        def read(block: list[int]) -> list[tuple[Any, Any]]:
            maps = self._read_maps(block) if self.kind else [None] * len(block)
            return list(zip(self._read_images(block), maps, strict=True))

        blocks = (list(range(start, min(start + step, total))) for start in range(0, total, step))
        with quiet_pillow():
            for pairs in in_order(read, blocks):
                yield from pairs

    def _check_label(self, label: int, place: int) -> None:
        """Raise DataError for a label beyond those there can be."""
        most = self.num_labels or MAX_LABELS
        if label >= most:
            limit = f"data.num_labels = {most}" if self.num_labels else "the most that there can be,"
            raise DataError(
                f"{self.dataset.name}: {self.dataset.name_of(place, self.kind)}: label {label}, "
                f"and {limit} ends at {most - 1}"
            )


def _ids(values: np.ndarray, notes: Notes) -> np.ndarray:
    """Return labels as ids; depth, which has no labels, as it is."""
    if notes.num_labels is None:
        return values
    return to_ids(binary_labels(values) if notes.is_binary else values, notes.num_labels)
