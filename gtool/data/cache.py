"""Images decoded and resized once into one memory-mapped array, or on access where that would be too large.

An entry of the cache is `<name>-<resolution>-<key>.npy`, uint8 (N, 3, R, R), with a `.json` beside it that
names what could not be read. The key is a hash of the source's fingerprint, the resolution and the crop
rule. Entries are written row after row to a temporary file and renamed, under a lock, so that parallel
processes build an entry once and a full disk leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from filelock import FileLock

from gtool.checkpoint import atomic_write, cache_dir
from gtool.data.lazy import LazyImages, Squares, in_order
from gtool.data.pixels import UnreadableImage, quiet_pillow
from gtool.data.sources import Source
from gtool.errors import CheckpointError, DataError

Progress = Callable[[int, int], None]
CROPS = ("center", "fit")
_BLOCK = 32  # images that a thread decodes at a time; their encoded bytes are in memory together
_BLOCK_PIXELS = 1 << 22


class Unread(NamedTuple):
    """An image of the source that has no pixels."""

    place: int  # in the source
    name: str
    reason: str


@dataclass(frozen=True)
class ImageSet:
    """Images of one resolution, ready to train on and to measure against."""

    images: (
        np.ndarray | LazyImages
    )  # uint8 (N, 3, R, R), not to be written to: a memory map, or decoded on access
    labels: np.ndarray | None  # int64 (N,), -1 where unknown
    fingerprint: str
    skipped: list[tuple[str, str]] = field(default_factory=list)  # names and reasons of what cannot be read

    def __len__(self) -> int:
        return len(self.images)


def load_images(
    source: Source,
    resolution: int,
    *,
    crop: str = "center",
    budget_gb: float = 4.0,
    progress: Progress | None = None,
) -> ImageSet:
    """Return the images of a source as squares of `resolution` pixels; small ones are enlarged.

    Args:
        source: from `open_source`.
        resolution: pixels of a side.
        crop: `center` takes the largest centred square, `fit` squeezes the whole picture.
        budget_gb: the largest array to store, in 10^9 bytes. Above it every image is decoded once, to find
            those that cannot be, and again on access.
        progress: called with the number of images done and of all.

    Raises:
        DataError: fewer than two images can be read, or the cache cannot be written.
    """
    if crop not in CROPS:
        raise DataError(f"crop `{crop}` is unknown; use {' or '.join(CROPS)}")
    entry = _Entry(source, resolution, crop)
    images: np.ndarray | LazyImages | None
    if entry.size > 1e9 * budget_gb:
        unread = entry.check(progress)
        kept = np.delete(np.arange(len(source)), [image.place for image in unread])
        images = LazyImages(source, kept, resolution, crop)
    else:
        images, unread = entry.load(progress)
    labels = source.labels
    if labels is not None:
        labels = np.delete(labels, [image.place for image in unread])
    return ImageSet(images, labels, entry.key, [(image.name, image.reason) for image in unread])


class _Entry:
    """One entry of the cache and the files it consists of."""

    def __init__(self, source: Source, resolution: int, crop: str) -> None:
        self.source = source
        self.resolution = resolution
        self.crop = crop
        text = "\n".join((source.fingerprint, str(resolution), crop))
        self.key = hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", Path(source.name).name).strip("-.")[:40] or "data"
        self.folder = cache_dir() / "pixels"
        self.stem = f"{slug}-{resolution}-{self.key}"
        self.pixels = self.folder / f"{self.stem}.npy"
        self.notes = self.folder / f"{self.stem}.json"

    @property
    def size(self) -> int:
        """Bytes of the whole array."""
        return len(self.source) * 3 * self.resolution**2

    def load(self, progress: Progress | None) -> tuple[np.ndarray, list[Unread]]:
        """Return the array and what it leaves out, building them first where they are not there."""
        found = self._find()
        if found is None:
            with self._locked():
                # Another process may have built it while this one waited.
                found = self._find() or self._build(progress)
        return found

    def check(self, progress: Progress | None) -> list[Unread]:
        """Return what cannot be read, decoding everything the first time."""
        if self.source.is_drawn:
            return []
        unread = self._read_notes()
        if unread is None:
            with self._locked():
                unread = self._read_notes()
                if unread is None:
                    unread = [row for row in self._rows(progress) if isinstance(row, Unread)]
                    self._require_two(unread)
                    self._write_notes(unread)
        return unread

    def _find(self) -> tuple[np.ndarray, list[Unread]] | None:
        unread = self._read_notes()
        if unread is None or not self.pixels.is_file():
            return None
        try:
            array = np.load(self.pixels, mmap_mode="r")
        except (ValueError, EOFError, OSError):  # cut off by hand or by a broken disk: made again
            return None
        expected = (len(self.source) - len(unread), 3, self.resolution, self.resolution)
        return (array, unread) if array.shape == expected and array.dtype == np.uint8 else None

    def _build(self, progress: Progress | None) -> tuple[np.ndarray, list[Unread]]:
        self._require_space()
        with atomic_write(self.pixels) as temporary:
            with temporary.open("wb") as file:
                # Rows are written, not mapped: a full disk is an error then, and not the end of the process.
                start = self._write_header(file, len(self.source))
                unread = self._write_rows(file, progress)
                self._require_two(unread)
                file.seek(0)
                assert self._write_header(file, len(self.source) - len(unread)) == start
            self._write_notes(unread)
        found = self._find()
        if found is None:
            raise DataError(f"{self.pixels}: was written and cannot be read back; is the disk sound?")
        return found

    def _write_header(self, file: IO[bytes], count: int) -> int:
        """Write the header of an .npy file and return its length, which does not depend on the count."""
        shape = (count, 3, self.resolution, self.resolution)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return file.tell()

    def _write_rows(self, file: IO[bytes], progress: Progress | None) -> list[Unread]:
        unread = []
        for row in self._rows(progress):
            if isinstance(row, Unread):
                unread.append(row)
            else:
                file.write(row.tobytes())
        return unread

    def _rows(self, progress: Progress | None) -> Iterator[np.ndarray | Unread]:
        """Yield every image of the source in order, decoded by all cores."""
        total = len(self.source)
        step = max(1, min(_BLOCK, _BLOCK_PIXELS // self.resolution**2))
        done = 0

        def read(block: range) -> Squares:
            return self.source.read_squares(block, self.resolution, self.crop)

        blocks = (range(start, min(start + step, total)) for start in range(0, total, step))
        with quiet_pillow():
            for squares in in_order(read, blocks):
                for square in squares:
                    if isinstance(square, UnreadableImage):
                        yield Unread(done, square.name, square.reason)
                    else:
                        yield square
                    done += 1
                if progress:
                    progress(done, total)

    def _require_two(self, unread: list[Unread]) -> None:
        total, readable = len(self.source), len(self.source) - len(unread)
        if readable < 2:
            first = f"; {unread[0].name}: {unread[0].reason}" if unread else ""
            raise DataError(
                f"{self.source.name}: {readable} of {total} images can be read, and 2 are needed{first}"
            )

    def _require_space(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if self.size > free:
            raise DataError(
                f"{self.folder}: the images need {self.size / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
                "set $GTOOL_CACHE to a folder on another disk, or data.cache_gb = 0 to decode on access"
            )

    def _read_notes(self) -> list[Unread] | None:
        try:
            return [Unread(*image) for image in json.loads(self.notes.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return None

    def _write_notes(self, unread: list[Unread]) -> None:
        with atomic_write(self.notes) as temporary:
            temporary.write_text(json.dumps(unread), encoding="utf-8")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only process that makes this entry; remove what one that was killed has left.

        Raises:
            DataError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{self.stem}.lock"):
                for stale in self.folder.glob(f".{self.stem}.*.tmp.*"):
                    stale.unlink()
                yield
        except (OSError, CheckpointError) as bad:
            reason = bad.strerror if isinstance(bad, OSError) and bad.strerror else str(bad)
            raise DataError(
                f"cache folder {self.folder}: {reason}; set $GTOOL_CACHE to another folder"
            ) from None
