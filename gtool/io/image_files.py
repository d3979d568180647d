"""Image files by their names: what counts as one, what a folder holds, which photos a command line means.

Nothing is opened and nothing heavy is imported. `gtool.io.image` decodes the files.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gtool.errors import DataError
from gtool.reading import file_problem

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".pcx"),
    )
)
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}  # that are written
MAX_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # pixels a side that a format can hold


def is_visible(name: str) -> bool:
    """Say whether a file or folder name is not hidden."""
    return not name.startswith(".") and name not in ("__MACOSX", "@eaDir", "$RECYCLE.BIN")


def visible_names(root: Path) -> Iterator[str]:
    """Yield the files below a folder that are not hidden, by their names relative to it, with slashes.

    Links are followed, each folder once. A link that leads nowhere is yielded: its reader reports it.

    Raises:
        DataError: a folder cannot be listed.
    """

    def fail(bad: OSError) -> None:
        raise DataError(f"{bad.filename}: cannot be listed: {bad.strerror}") from None

    visited: set[str] = set()
    for folder, below, names in os.walk(root, followlinks=True, onerror=fail):
        real = os.path.realpath(folder)
        if real in visited:
            below.clear()
            continue
        visited.add(real)
        below[:] = [name for name in below if is_visible(name)]
        relative = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if relative == "." else f"{relative}/"
        for name in names:
            path = f"{folder}/{name}"
            if is_visible(name) and (os.path.isfile(path) or os.path.islink(path)):
                yield prefix + name


def visible_files(root: Path, suffixes: frozenset[str] | tuple[str, ...]) -> Iterator[Path]:
    """Yield the files of `visible_names` that have one of these suffixes (lower case)."""
    return (root / name for name in visible_names(root) if os.path.splitext(name)[1].lower() in suffixes)


def is_url(text: str) -> bool:
    """Say whether a text is an address (`https://...`) rather than a path."""
    return "://" in text and text.partition("://")[0].isalnum()


def check_size(path: Path, width: int, height: int) -> None:
    """Raise DataError for a picture with more pixels a side than the format of its file can hold."""
    longest = MAX_SIDE.get(FORMATS[path.suffix.lower()])
    if longest is not None and max(width, height) > longest:
        raise DataError(f"{path}: {path.suffix} holds at most {longest:,} pixels a side; write .png")


@dataclass(frozen=True)
class Found:
    """A file that an argument of the command line stands for, or why there is none."""

    path: Path
    below: Path = Path()  # folders between the argument and the file
    searched: bool = False  # found in a folder or by a pattern, not named
    problem: str = ""
    written: str = ""  # a URL, of which a path loses a slash


def find_photos(arguments: Sequence[str]) -> list[Found]:
    """Find the photos that files, folders and quoted patterns stand for, each file once.

    Folders are searched with all below them for files called as images; hidden ones are passed over and links
    followed, each folder once. A named file may be called anything. What cannot be found comes back with a problem.
    """
    found: dict[str, Found] = {}
    for argument in arguments:
        for item in _find(argument):
            found.setdefault(os.path.abspath(item.path), item)
    return list(found.values())


def _find(argument: str) -> list[Found]:
    if not argument:
        return [Found(Path(), problem="a photo without a name")]
    if is_url(argument):
        problem = "a URL, and files are wanted: download it first"
        return [Found(Path(argument), problem=problem, written=argument)]
    path = Path(argument if os.path.lexists(argument) else os.path.expanduser(argument))
    if os.path.isdir(path):
        return _find_in_folder(path)
    if not os.path.lexists(path) and glob.has_magic(argument):
        matches = sorted(glob.glob(str(path), recursive=True))
        inside = [replace(item, searched=True) for match in matches for item in _find(match)]
        return inside or [Found(path, searched=True, problem="no file fits this pattern")]
    return [Found(path, problem=file_problem(path))]


def _find_in_folder(root: Path) -> list[Found]:
    try:
        paths = sorted(visible_files(root, IMAGE_SUFFIXES))
    except DataError as bad:
        return [Found(root, searched=True, problem=str(bad).removeprefix(f"{root}: "))]
    if not paths:
        suffixes = " ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        return [Found(root, searched=True, problem=f"no photos found (looked for {suffixes})")]
    return [Found(path, path.relative_to(root).parent, True, file_problem(path)) for path in paths]
