"""Entries of the cache folder: what is made once, by one process, and read or mapped into memory ever after.

An entry is `<name>-<key>.npy` with a `.json` of notes beside it; the key is a hash of everything that the arrays
depend on. Rows are written one after another to a temporary file that is renamed, under a lock, so that parallel
processes make an entry once and a full disk leaves nothing behind. A complete entry may lie in a read-only folder.
"""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from gtool.errors import CheckpointError, DataError
from gtool.io.files import atomic_write, cache_dir
from gtool.io.locks import one_at_a_time

Found = TypeVar("Found")


class CacheEntry:
    """The files of one entry in `<cache>/<room>/`."""

    def __init__(self, room: str, name: str, size: str, depends_on: tuple[str, ...]) -> None:
        """Name an entry after a data set (`name`) and a size; `depends_on` is all that its content depends on."""
        self.key = hashlib.blake2b("\n".join(depends_on).encode(), digest_size=10).hexdigest()
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", Path(name).name).strip("-.")[:40] or "data"
        self.folder = cache_dir() / room
        self.stem = f"{slug}-{size}-{self.key}"
        self.notes = self.folder / f"{self.stem}.json"

    def get(self, read: Callable[[], Found | None], make: Callable[[], None]) -> Found:
        """Return what `read` finds; where that is None, let one process `make` it first; DataError where it cannot."""
        if (found := read()) is None:
            with self._locked():
                # Another process may have made it while this one waited.
                if (found := read()) is None:
                    make()
                    found = read()
        if found is None:
            raise DataError(f"{self.array()}: was written and cannot be read back; is the disk sound?")
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only process that makes this entry; remove what one that was killed has left."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with one_at_a_time(self.folder / f"{self.stem}.lock"):
                for stale in self.folder.glob(f".{self.stem}.*.tmp.*"):
                    stale.unlink()
                yield
        except (OSError, CheckpointError) as bad:
            reason = bad.strerror if isinstance(bad, OSError) and bad.strerror else str(bad)
            raise DataError(
                f"cache folder {self.folder}: {reason}; set $GTOOL_CACHE to another folder"
            ) from None

    def array(self, part: str = "") -> Path:
        """Return the file of an array; an entry of several gives each of the others a name."""
        return self.folder / (f"{self.stem}.{part}.npy" if part else f"{self.stem}.npy")

    def open_array(self, shape: tuple[int, ...], *kinds: Any, part: str = "") -> np.ndarray | None:
        """Map an array of this shape and one of these types; None where there is none such."""
        try:
            array: np.ndarray = np.load(self.array(part), mmap_mode="r")
        # Not there, or cut off by hand or by a broken disk: made again.
        except (ValueError, EOFError, OSError):
            return None
        return array if array.shape == shape and array.dtype in [np.dtype(kind) for kind in kinds] else None

    def require_space(self, size: int, what: str, instead: str = "") -> None:
        """Raise DataError where so many bytes do not fit; `instead` is what else the user can do."""
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise DataError(
                f"{self.folder}: {what} need {_size(size)} and {_size(free)} are free; "
                f"set $GTOOL_CACHE to a folder on another disk{instead}"
            )

    def read_notes(self) -> Any:
        """Return what `write_notes` was given; None where that is missing or damaged."""
        try:
            return json.loads(self.notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def write_notes(self, notes: Any) -> None:
        with atomic_write(self.notes) as temporary:
            temporary.write_text(json.dumps(notes), encoding="utf-8")


def _size(count: float) -> str:
    """Return a number of bytes as `1.2 GB` or `100 bytes`."""
    if count < 1000:
        return f"{count:.0f} bytes"
    power = min(3, int(math.log10(count)) // 3)
    return f"{count / 1000**power:,.1f} {('KB', 'MB', 'GB')[power - 1]}"


class RowWriter:
    """An .npy file that grows row by row; how many there are is written at the end."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: Any) -> None:
        self.count = 0
        self._file = file
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._start = self.write_header()

    def append(self, rows: np.ndarray) -> None:
        """Write rows (n, *shape). They are written, not mapped: a full disk is an error, not the end of the process."""
        assert (rows.shape[1:], rows.dtype) == (self.shape, self.dtype)
        self._file.write(np.ascontiguousarray(rows).tobytes())
        self.count += len(rows)

    def convert(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace all values by `change(values)`, in place; the new type is no larger."""
        size, old = int(np.prod(self.shape)), self.dtype
        self.dtype = change(np.zeros(1, old)).dtype
        step = max(1, (1 << 22) // size)
        for first in range(0, self.count, step):
            many = min(step, self.count - first) * size
            self._file.seek(self._start + first * size * old.itemsize)
            values = np.frombuffer(self._file.read(many * old.itemsize), old)
            self._file.seek(self._start + first * size * self.dtype.itemsize)
            self._file.write(change(values).tobytes())
        self._file.truncate(self._start + self.count * size * self.dtype.itemsize)

    def write_header(self) -> int:
        """Write how many rows there are; returns its length, which does not depend on the count."""
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count, *self.shape)}
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()


@contextmanager
def write_rows(path: Path, shape: tuple[int, ...], dtype: Any) -> Iterator[RowWriter]:
    """Write an .npy file (count, *shape), whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("w+b") as file:
        rows = RowWriter(file, shape, dtype)
        yield rows
        rows.write_header()
