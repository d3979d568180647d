"""A file from a publisher: under a lock, to a temporary name, checked, and only then under its own name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from gtool.errors import NetworkError
from gtool.io.files import atomic_write

TIMEOUT_SECONDS = 30.0  # between two packets, once the probe has found the server
CHUNK_BYTES = 1 << 20

Progress = Callable[[int, int], None]


def fetch(url: str, target: Path, is_good: Callable[[Path], bool], progress: Progress | None = None) -> None:
    """Download to `target` unless a good file is there; processes that want the same one wait for the first.

    Raises:
        NetworkError: the download fails, or gives something that is not good; nothing is left behind.
    """
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if target.is_file() and is_good(target):
            return
        with atomic_write(target) as temporary:
            with temporary.open("wb") as out:
                for chunk in _packets(url, progress):
                    out.write(chunk)
            if not is_good(temporary):
                raise NetworkError(f"{url} did not give the published file")


def _packets(url: str, progress: Progress | None) -> Iterator[bytes]:
    """Yield the body of a response; every failure of the network becomes a NetworkError."""
    import http.client
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            total, done = int(response.headers.get("Content-Length") or 0), 0
            while chunk := response.read(CHUNK_BYTES):
                yield chunk
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
    except (OSError, http.client.HTTPException) as bad:
        raise NetworkError(f"{url}: {bad}") from None
