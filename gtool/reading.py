"""The door for files of strangers: whatever goes wrong while one is parsed is the file's fault, said in one line.

A `with reading(...)` block holds the parsing and the checks of what was parsed, and nothing that comes later, so that
a bug of ours is never taken for a damaged file. What `check_plain` has let pass can be walked, copied and turned into
floats without a thought.
"""

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gtool.errors import DataError, GToolError, did_you_mean, printable

MOST_DEPTH = 32  # of tables and lists in each other
MOST_BITS = 63  # of a whole number
MOST_TEXT = 64 << 20  # bytes of a JSON or TOML file
# How files begin that are often taken for others.
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, whose file was not downloaded"),
    (b"\x93NUMPY", "an .npy array"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"PAR1", "a parquet table"),
    (b"\x80", "a pickle"),
    (b"<", "a page of HTML or XML"),
)


@contextmanager
def reading(path: Path | str, kind: str, error: type[GToolError] = DataError) -> Iterator[None]:
    """Turn what a parser raises into `PATH: not a readable KIND: why`; errors of gtool pass as they are.

    path: of a file that has to be there; a text is a name alone.
    kind: what the file should be, without an article.

    Raises:
        GToolError: of the class `error`; also where there is no file to read.
    """
    try:
        if isinstance(path, Path) and (problem := file_problem(path)):
            raise error(f"{path}: {problem}")
        yield
    except GToolError:
        raise
    except BaseException as bad:
        # Parsers in Rust report their own bugs by a class that is no Exception.
        if not isinstance(bad, Exception) and type(bad).__name__ != "PanicException":
            raise
        found = looks_like(path) if isinstance(path, Path) else ""
        said = (
            f"{found}, not a {kind}"
            if found and kind not in found
            else f"not a readable {kind}: {reason(bad)}"
        )
        raise error(f"{path}: {said}") from None


def file_problem(path: Path) -> str:
    """Say why a path is no file that can be opened; empty when it is one."""
    if os.path.isfile(path):
        return "" if os.access(path, os.R_OK) else "cannot be read: permission denied"
    if os.path.islink(path) and not os.path.exists(path):
        return "a link that leads nowhere"
    if os.path.lexists(path):
        if os.path.isdir(path):
            return "a folder; name a file in it"
        return "a pipe, which can be read once; save it as a file" if path.is_fifo() else "not a file"
    return f"no such file{nearest_name(path)}"


def nearest_name(path: Path) -> str:
    """Return `; did you mean ...` where something beside a missing path is called much the same, else nothing."""
    try:
        hint = did_you_mean(path.name, sorted(os.listdir(path.parent)))
    except OSError:
        return ""
    return hint if hint.startswith("; did") else ""


def reason(bad: BaseException) -> str:
    """Return in a few words of one line what an exception says."""
    if isinstance(bad, RecursionError):
        return "nested too deep"
    if isinstance(bad, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(bad, UnicodeDecodeError):
        return "not UTF-8 text"
    if hasattr(bad, "errors"):  # of pydantic
        first = bad.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return printable(f"`{place}`: {first['msg']}" if place else first["msg"])[:200]
    lines = (line for line in str(bad).splitlines() if line.strip())
    said = getattr(bad, "strerror", None) or next(lines, "")
    return printable(said.strip())[:200] or type(bad).__name__


def looks_like(path: Path) -> str:
    """Say by its first bytes what a file is; empty where they say nothing."""
    try:
        with path.open("rb") as stream:
            start = stream.read(32)
            if 0 < int.from_bytes(start[:8], "little") < path.stat().st_size and start[8:9] == b"{":
                return "a safetensors file"
            if start[:4] == b"PK\3\4":
                names = zipfile.ZipFile(stream).namelist()
                of_torch = any(name.endswith("/data.pkl") for name in names)
                arrays = any(name.endswith(".npy") for name in names)
                return "a torch pickle" if of_torch else "an .npz of arrays" if arrays else "a zip file"
    except Exception:  # damaged: then it looks like nothing
        return ""
    return next((what for beginning, what in _BEGINNINGS if start.startswith(beginning)), "")


def read_bytes(path: Path, most: int = MOST_TEXT) -> bytes:
    """Return the contents of a file; ValueError where they are more than `most` bytes."""
    with path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size > most:
            raise ValueError(f"larger than {most >> 20 or most / 2**20:.3g} MB")
        return stream.read()


def parse_json(text: bytes | str) -> Any:
    """Return the values of JSON; ValueError for anything else, and as of `check_plain`."""
    value = json.loads(text)
    check_plain(value)
    return value


def check_plain(value: Any) -> None:
    """Raise ValueError for values that are nested too deep, or hold numbers that nothing of ours counts in."""
    level = [value]
    for _ in range(MOST_DEPTH):
        if large := next((x for x in level if type(x) is int and x.bit_length() > MOST_BITS), None):
            raise ValueError(f"a whole number of {large.bit_length():,} bits")
        inside = [x.values() if isinstance(x, dict) else x for x in level if isinstance(x, dict | list)]
        level = [part for parts in inside for part in parts]
        if not level:
            return
    raise ValueError(f"nested more than {MOST_DEPTH} deep")


@contextmanager
def limited(memory: int, file: int | None = None) -> Iterator[None]:
    """Let this process take no more than so many bytes of memory besides what it has, and write no larger file.

    What needs more gets a MemoryError or an OSError. The system does it, where it can: memory on Linux alone.
    """
    if os.name != "posix":
        yield
        return
    import resource

    limits = {resource.RLIMIT_FSIZE: file} if file else {}
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        limits[resource.RLIMIT_DATA] = memory + 1024 * int(status.partition("VmData:")[2].split()[0])
    before = {which: resource.getrlimit(which) for which in limits}
    try:
        for which, most in limits.items():
            soft, hard = before[which]
            resource.setrlimit(which, (most if soft == resource.RLIM_INFINITY else min(soft, most), hard))
        yield
    finally:
        for which, both in before.items():
            resource.setrlimit(which, both)
