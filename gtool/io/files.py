"""Files that appear whole or not at all, and the folder for what can be made again."""

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from gtool.errors import CheckpointError

# In names of unfinished files: whose process it is that writes them, in a folder that several machines see.
HOST = hashlib.blake2b(socket.gethostname().encode(), digest_size=2).hexdigest()


def cache_dir() -> Path:
    """Return the folder for everything that can be made again: $GTOOL_CACHE or the platform's cache / gtool."""
    if chosen := os.environ.get("GTOOL_CACHE"):
        return Path(chosen).expanduser()
    variable, usual = ("LOCALAPPDATA", "AppData/Local") if os.name == "nt" else ("XDG_CACHE_HOME", ".cache")
    return Path(os.environ.get(variable) or Path.home() / usual) / "gtool"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed and renamed, on failure removed.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{HOST}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent.resolve())
        with usual_mode(temporary):
            yield temporary
        flush(temporary)
        os.replace(temporary, path)
    except OSError as bad:
        raise CheckpointError(f"{path}: cannot be written: {bad.strerror or bad}") from None
    finally:
        with suppress(OSError):  # where there is no folder, there is nothing to remove
            temporary.unlink(missing_ok=True)


@cache
def _remove_leftovers(folder: Path) -> None:
    """Delete, once a process, what others of this machine that were killed while they wrote have left in a folder."""
    if os.name != "posix":
        return
    for path in folder.glob(".*.tmp*"):
        number = re.fullmatch(rf"\..*\.(\d+)-{HOST}\.tmp(\.\w+)?", path.name)
        if number and path.is_file() and not _is_running(int(number[1])):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        pass
    return True


@contextmanager
def usual_mode(path: Path) -> Iterator[None]:
    """Give a file that is written the mode that the umask gives, whatever its writer would (safetensors: 0600)."""
    path.touch()
    mode = path.stat().st_mode
    yield
    path.chmod(mode)


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def sampled_digest(path: Path) -> str:
    """Return a hash of the size of a file and of its first and last megabyte, the same on every machine that has it."""
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=6)
    with path.open("rb") as stream:
        for start in (0, max(0, size - (1 << 20))):
            stream.seek(start)
            digest.update(stream.read(1 << 20))
    return digest.hexdigest()
