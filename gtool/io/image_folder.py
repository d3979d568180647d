"""A folder of separate PNG files that appears whole.

The files are made in a hidden part of the folder and moved at the end. It lies inside the folder, so that
both are on one disk even where the folder is a mounted volume.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gtool.errors import CheckpointError
from gtool.io.outputs import check_folder
from gtool.io.picture import enlarge, write_png

# Encoding leaves Python's lock, and flushing waits for the disk: more threads than cores pay off.
WORKERS = 4
UNFINISHED = ".unfinished"
BATCHES_AHEAD = 2  # handed over and not yet written, so that memory stays bounded
_NUMBERED = re.compile(r"\d{6,}\.png")


@contextmanager
def open_folder(path: Path, *, overwrite: bool = False, scale: int = 1) -> Iterator[FolderWriter]:
    """Yield a writer of numbered PNG files: all in place when the block ends, none when it fails.

    Args:
        path: made where it is not there.
        overwrite: replace the numbered PNG files of a folder that is not empty; other files in it stay.
        scale: whole number that every pixel is enlarged by.

    Raises:
        CheckpointError: the folder is refused (`check_folder`) or cannot be written.
    """
    check_folder(path, overwrite)
    is_new = not path.exists()
    partial = path / UNFINISHED
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
        with ThreadPoolExecutor(WORKERS) as pool:
            writer = FolderWriter(partial, pool, scale)
            yield writer
            writer.wait(0)
        _move(partial, path)
    except OSError as bad:
        raise CheckpointError(f"{path}: cannot be written: {bad.strerror or bad}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if is_new and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _move(partial: Path, path: Path) -> None:
    for entry in path.iterdir():
        if _NUMBERED.fullmatch(entry.name):
            entry.unlink()
    for made in partial.iterdir():
        os.replace(made, path / made.name)


class FolderWriter:
    """Writes PNG files with several threads while the next images are being made."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor, scale: int) -> None:
        self._folder = folder
        self._pool = pool
        self._scale = scale
        self._batches: deque[list[Future[None]]] = deque()

    def add(self, numbers: Sequence[int], images: Any, texts: Sequence[Mapping[str, str]]) -> None:
        """Write uint8 (n, 3, R, R) as `<number, six digits>.png`, each with its text chunks."""
        rows = zip(numbers, images, texts, strict=True)
        self._batches.append([self._pool.submit(self._write, *row) for row in rows])
        self.wait(BATCHES_AHEAD)

    def wait(self, left: int) -> None:
        """Wait until at most `left` batches are unwritten; raises what went wrong in a thread."""
        while len(self._batches) > left:
            for written in self._batches.popleft():
                written.result()

    def _write(self, number: int, image: Any, text: Mapping[str, str]) -> None:
        path = self._folder / f"{number:06d}.png"
        write_png(path, enlarge(image, self._scale), text)
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
