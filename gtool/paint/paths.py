"""Which files are made of which photo or video, decided before any pixel is read. Imports nothing heavy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gtool.errors import GToolError, RecipeError
from gtool.io.image_files import FORMATS, Found
from gtool.io.outputs import check_animation
from gtool.io.video_formats import VIDEO_FORMATS, is_video, require_av

PAINTED = "-painted"
_PAINTING = re.compile(rf".*{PAINTED}(-\d+)?")  # stems of paintings, which lie among photos
# Name in the record of `--json`, and suffixes, the first of them for folders.
_KINDS = {
    "-o": ("out", (*FORMATS, *VIDEO_FORMATS)),
    "--svg": ("svg", (".svg",)),
    "--strokes": ("stroke_file", (".json",)),
    "--animate": ("animation", (".webp", ".gif", ".mp4")),
}
Outputs = Mapping[str, str]  # what was given for these flags: a file, or a folder for several photos


@dataclass(frozen=True)
class PaintingFiles:
    """A picture or video to paint and the files to make of it: `out`, and where wanted the other kinds."""

    source: Path
    made: dict[str, Path]

    @property
    def picture(self) -> Path:
        """The painting, or the painted video."""
        return self.made["out"]

    @property
    def is_video(self) -> bool:
        """Whether every frame is to be painted."""
        return self.picture.suffix.lower() in VIDEO_FORMATS


def check_outputs(outputs: Outputs) -> None:
    """Check the suffixes of output files.

    Raises:
        RecipeError: an unknown suffix, or one file named for two things.
        GToolError: a video without PyAV.
    """
    files = set()
    for flag, text in outputs.items():
        if _is_folder(text):
            continue
        suffix, known_suffixes = Path(text).suffix.lower(), _KINDS[flag][1]
        if suffix not in known_suffixes:
            *others, last = known_suffixes
            known = f"{', '.join(others)} or {last}" if others else last
            raise RecipeError(f"{flag} {text}: ends in {known}, or in / for a folder")
        if (place := os.path.abspath(os.path.expanduser(text))) in files:
            raise RecipeError(f"{flag} {text}: is named for two things")
        files.add(place)
        if flag == "-o" and suffix in VIDEO_FORMATS:
            require_av(Path(text))
        elif flag == "--animate":
            check_animation(Path(text))


def _is_folder(text: str) -> bool:
    separators = tuple(filter(None, (os.sep, os.altsep)))
    return text.endswith(separators) or os.path.isdir(os.path.expanduser(text)) or Path(text).suffix == ""


def is_painting(item: Found) -> bool:
    """Whether a file that was searched for is called as the paintings of earlier calls."""
    return item.searched and bool(_PAINTING.fullmatch(item.path.stem))


def files_of_photos(
    found: Sequence[Found], outputs: Outputs, force: bool
) -> tuple[list[PaintingFiles], list[tuple[Path, str]]]:
    """Name the files that are made of every photo or video, and the sources that cannot be painted, with the reasons.

    Raises:
        GToolError: one file for several photos, what is made of pictures alone for a video, a video without PyAV, or
            why the only photo cannot be painted.
    """
    if len(found) > 1 or found[0].searched:
        photos = f"{len(found):,} photos need" if len(found) > 1 else "photos of a folder or pattern need"
        for flag, text in outputs.items():
            if not _is_folder(text):
                raise RecipeError(f"{flag} {text}: {photos} a folder; name one that ends in /")
    sources = {os.path.realpath(item.path) for item in found}
    made: list[PaintingFiles] = []
    failed: list[tuple[Path, str]] = []
    for item, stem in zip(found, _stems(found, outputs), strict=True):
        files = _files(item, stem, outputs)
        if not item.problem and (files.is_video or is_video(item.path)):
            _check_video(item.path, outputs)
        reason = f"{item.path}: {item.problem}" if item.problem else _problem(files, force, sources)
        if reason:
            failed.append((item.path, reason))
        else:
            made.append(files)
    if len(found) == 1 and failed:
        raise GToolError(failed[0][1])
    return made, failed


def files_of(source: Path, stem: str, outputs: Outputs, force: bool) -> PaintingFiles:
    """Name the files that are made of a stroke file or of the built-in scene, or raise GToolError."""
    files = _files(Found(source), stem, outputs)
    if files.is_video:
        raise RecipeError(f"-o {files.picture}: a video is made of a video")
    if reason := _problem(files, force, {os.path.realpath(source)}):
        raise GToolError(reason)
    return files


def _check_video(path: Path, outputs: Outputs) -> None:
    for flag, text in outputs.items():
        if flag != "-o":
            raise RecipeError(f"{flag} is for pictures, not for videos")
        if not _is_folder(text) and Path(text).suffix.lower() not in VIDEO_FORMATS:
            raise RecipeError(f"-o {text}: {path} is a video, which becomes {' or '.join(VIDEO_FORMATS)}")
    require_av(path)


def _stems(found: Sequence[Found], outputs: Outputs) -> Iterator[str]:
    """Names without suffix, different where two photos would be painted into one file."""
    into_folder = any(_is_folder(text) for text in outputs.values())
    taken: set[tuple[str, str]] = set()
    for item in found:
        folder = str(item.below if into_folder else os.path.abspath(item.path.parent))
        kind = item.path.suffix.lstrip(".").lower()
        tail, number = "", 1
        while (key := (folder, f"{item.path.stem}{tail}".casefold())) in taken:
            tail = f"-{kind}" if number == 1 else f"-{kind}-{number}"
            number += 1
        taken.add(key)
        yield f"{item.path.stem}{tail}{PAINTED}"


def _files(item: Found, stem: str, outputs: Outputs) -> PaintingFiles:
    usual = VIDEO_FORMATS[0] if is_video(item.path) else next(iter(FORMATS))
    made = {"out": item.path.parent / f"{stem}{usual}"}
    for flag, text in outputs.items():
        path, (kind, suffixes) = Path(os.path.expanduser(text)), _KINDS[flag]
        suffix = usual if flag == "-o" else suffixes[0]
        made[kind] = path / item.below / f"{stem}{suffix}" if _is_folder(text) else path
    return PaintingFiles(item.path, made)


def _problem(files: PaintingFiles, force: bool, sources: set[str]) -> str:
    """Say why the files cannot be made; empty when they can."""
    for path in files.made.values():
        if os.path.realpath(path) in sources:
            return f"{path}: is what is to be painted; choose another name"
        if os.path.isdir(path):
            return f"{path}: is a folder"
        if os.path.lexists(path) and not force:
            return f"{path}: exists; add --force to replace it, or choose another name"
        folder = path.parent
        while not os.path.lexists(folder) and folder != folder.parent:
            folder = folder.parent
        if not os.path.isdir(folder):
            return f"{path}: cannot be written: {folder} is not a folder"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"{path}: cannot be written: {folder} is read-only"
    return ""
