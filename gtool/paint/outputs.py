"""What `gtool paint` reads and writes: photos in, a file for each thing made of them; decided without torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gtool.errors import GToolError, RecipeError
from gtool.io import video as clips
from gtool.io.image_files import FORMATS, Found

PAINTED = "-painted"
ANIMATIONS = (".webp", ".gif", ".mp4")
_SUFFIXES = {
    "-o": (*FORMATS, *clips.FORMATS),
    "--svg": (".svg",),
    "--strokes": (".json",),
    "--animate": ANIMATIONS,
}
_OURS = re.compile(rf".*{PAINTED}(-\d+)?")  # stems of paintings, which lie among photos


@dataclass(frozen=True)
class Outputs:
    """Where the user wants things, as typed: files, or folders when there are several photos."""

    out: str | None = None
    svg: str | None = None
    strokes: str | None = None
    animate: str | None = None
    force: bool = False

    @property
    def typed(self) -> dict[str, str]:
        """What was given, by flag."""
        given = {"-o": self.out, "--svg": self.svg, "--strokes": self.strokes, "--animate": self.animate}
        return {flag: text for flag, text in given.items() if text is not None}


@dataclass(frozen=True)
class Job:
    """One picture or clip to paint and the files to make of it."""

    source: Path
    out: Path
    svg: Path | None = None
    strokes: Path | None = None
    animation: Path | None = None

    @property
    def is_clip(self) -> bool:
        """Whether every frame is to be painted."""
        return self.out.suffix.lower() in clips.FORMATS

    @property
    def files(self) -> dict[str, Path]:
        """Every file that is made, by its kind."""
        made = {"out": self.out, "svg": self.svg, "stroke_file": self.strokes, "animation": self.animation}
        return {kind: path for kind, path in made.items() if path is not None}


@dataclass(frozen=True)
class Failure:
    """A picture that was not painted, and one line that says why."""

    source: Path
    text: str


def shown(path: Path | str) -> str:
    """Return a path as one line that every terminal can print."""
    text = str(path).encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def check_outputs(outputs: Outputs) -> None:
    """Refuse names that say no format; looks at no photo.

    Raises:
        RecipeError: an unknown suffix, or one file named for two things.
        GToolError: .mp4 without what writes it.
    """
    files = set()
    for flag, text in outputs.typed.items():
        if _is_folder(text):
            continue
        *others, last = _SUFFIXES[flag]
        suffix = Path(text).suffix.lower()
        if suffix not in _SUFFIXES[flag]:
            known = f"{', '.join(others)} or {last}" if others else last
            raise RecipeError(f"{flag} {shown(text)}: ends in {known}, or in / for a folder")
        if (place := os.path.abspath(os.path.expanduser(text))) in files:
            raise RecipeError(f"{flag} {shown(text)}: is named for two things")
        files.add(place)
        if flag == "-o" and suffix in clips.FORMATS:
            clips.require_av(Path(text))
        elif suffix == ".mp4":
            from gtool.io.outputs import check_animation

            check_animation(Path(text))


def _is_folder(text: str) -> bool:
    separators = tuple(filter(None, (os.sep, os.altsep)))
    return text.endswith(separators) or os.path.isdir(os.path.expanduser(text)) or Path(text).suffix == ""


def plan_jobs(found: Sequence[Found], outputs: Outputs) -> tuple[list[Job], list[Failure]]:
    """Give every photo the files that are made of it, and leave out those that cannot be made.

    Raises:
        RecipeError: one file for several photos, or what is made of pictures alone for a clip.
        GToolError: why the only photo cannot be painted, or a clip where nothing can read it.
    """
    single = len(found) == 1 and not found[0].searched
    if not single:
        _require_folders(outputs, len(found))
    sources = {os.path.realpath(item.path) for item in found}
    jobs: list[Job] = []
    failures: list[Failure] = []
    for item, stem in zip(found, _stems(found, outputs), strict=True):
        job = _job(item, stem, outputs)
        if not item.problem and (job.is_clip or clips.is_clip(item.path)):
            _refuse_for_clip(item.path, outputs)
        if item.problem:
            failures.append(Failure(item.path, shown(f"{item.path}: {item.problem}")))
        elif reason := _refusal(job, outputs.force, sources):
            failures.append(Failure(item.path, reason))
        else:
            jobs.append(job)
    if len(found) == 1 and failures:
        raise GToolError(failures[0].text)
    return jobs, failures


def plan_one(source: Path, stem: str, outputs: Outputs) -> Job:
    """Return the files to make of what is no photo: a stroke file, or the built-in scene.

    Raises:
        GToolError: one of them exists or cannot be written.
    """
    job = _job(Found(source), stem, outputs)
    if job.is_clip:
        raise RecipeError(f"-o {shown(job.out)}: a clip is made of a clip")
    if reason := _refusal(job, outputs.force, {os.path.realpath(source)}):
        raise GToolError(reason)
    return job


def _refuse_for_clip(path: Path, outputs: Outputs) -> None:
    for flag, text in outputs.typed.items():
        if flag != "-o":
            raise RecipeError(f"{flag} is for pictures, not for clips")
        if not _is_folder(text) and Path(text).suffix.lower() not in clips.FORMATS:
            known = " or ".join(clips.FORMATS)
            raise RecipeError(f"-o {shown(text)}: {shown(path)} is a clip, which becomes {known}")
    clips.require_av(path)


def without_paintings(found: Sequence[Found]) -> list[Found]:
    """Leave out the paintings of earlier calls where photos are searched for."""
    return [item for item in found if not (item.searched and _OURS.fullmatch(item.path.stem))]


def _require_folders(outputs: Outputs, count: int) -> None:
    for flag, text in outputs.typed.items():
        if not _is_folder(text):
            photos = "photos of a folder or pattern need" if count == 1 else f"{count:,} photos need"
            raise RecipeError(f"{flag} {shown(text)}: {photos} a folder; name one that ends in /")


def _stems(found: Sequence[Found], outputs: Outputs) -> Iterator[str]:
    """Names without suffix, different where two photos would be painted into one file."""
    into_folder = any(_is_folder(text) for text in outputs.typed.values())
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


def _job(item: Found, stem: str, outputs: Outputs) -> Job:
    places: dict[str, Path] = {}
    made = clips.FORMATS[0] if clips.is_clip(item.path) else next(iter(FORMATS))
    for flag, text in outputs.typed.items():
        path = Path(os.path.expanduser(text))
        suffix = made if flag == "-o" else _SUFFIXES[flag][0]
        places[flag] = path / item.below / f"{stem}{suffix}" if _is_folder(text) else path
    return Job(
        source=item.path,
        out=places.get("-o", item.path.parent / f"{stem}{made}"),
        svg=places.get("--svg"),
        strokes=places.get("--strokes"),
        animation=places.get("--animate"),
    )


def _refusal(job: Job, force: bool, sources: set[str]) -> str:
    """Say why the files of a job cannot be made; empty when they can."""
    for path in job.files.values():
        name = shown(path)
        if os.path.realpath(path) in sources:
            return f"{name}: is what is to be painted; choose another name"
        if os.path.isdir(path):
            return f"{name}: is a folder"
        if os.path.lexists(path) and not force:
            return f"{name}: exists; add --force to replace it, or choose another name"
        if reason := _unwritable(path.parent):
            return f"{name}: cannot be written: {reason}"
    return ""


def _unwritable(folder: Path) -> str:
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not os.path.isdir(folder):
        return f"{shown(folder)} is not a folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{shown(folder)} is read-only"
