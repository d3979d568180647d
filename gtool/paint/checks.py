"""What a `gtool paint` command line asks for: what is painted, how, and into which files; without torch."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gtool import console
from gtool.errors import DataError, GToolError, RecipeError, did_you_mean
from gtool.io.image_files import FORMATS, Found, find_photos
from gtool.io.outputs import (
    ANIMATION_SUFFIXES,
    VIDEO_FORMATS,
    check_animation,
    is_folder,
    is_video,
    require_av,
    write_problem,
)
from gtool.io.run_folder import find_weights, shipped_weights
from gtool.models import registry
from gtool.models.description import read_description
from gtool.paint.options import STYLES, PaintOptions
from gtool.reading import read_bytes, reading
from gtool.strokes.settings import BRUSHES, METHODS, SELECTIONS

(MODEL,) = registry.models_that(paints=True)
RGB = tuple[float, float, float]  # in [0, 1]
CANVAS_COLORS = {
    "white": "#ffffff",
    "black": "#000000",
    "grey": "#808080",
    "linen": "#d6c8ae",
    "kraft": "#b58e63",
    "cream": "#f3ead7",
    "umber": "#6b4f3a",
    "slate": "#3d444b",
}
DEFAULT_SIDE = 2048  # pixels of the longer side
LARGEST_PHOTO = 8192  # pixels a side that are painted; strokes can be rendered larger
SCENE = Path("scene.png")  # the built-in picture
PAINTED = "-painted"
_PAINTING = re.compile(rf".*{PAINTED}(-\d+)?")  # stems of paintings, which lie among photos
# Name in the record of `--json`, and suffixes, the first of them for folders.
_KINDS = {
    "-o": ("out", (*FORMATS, *VIDEO_FORMATS)),
    "--svg": ("svg", (".svg",)),
    "--strokes": ("stroke_file", (".json",)),
    "--animate": ("animation", ANIMATION_SUFFIXES),
}
# Fields that say how a photo is painted, which strokes of a file already are.
_OF_PAINTING = (
    *("method", "select", "weights", "detail", "keep_all", "seed", "colors", "palette", "scale", "style"),
    *("min_stroke", "max_stroke"),
)
MOST_COLORS = 256  # of a palette


@dataclass(frozen=True)
class PaintingFiles:
    """A picture or video to paint and the files to make of it: `out`, and where wanted the other kinds.

    problem: why it cannot be painted; empty where it can.
    """

    source: Path
    made: dict[str, Path]
    problem: str = ""

    @property
    def picture(self) -> Path:
        """The painting, or the painted video."""
        return self.made["out"]

    @property
    def is_video(self) -> bool:
        """Whether every frame is to be painted."""
        return self.picture.suffix.lower() in VIDEO_FORMATS


@dataclass(frozen=True)
class PaintInputs:
    """What the options name, found and checked; no pixel is read yet."""

    options: PaintOptions
    files: list[PaintingFiles]  # those with a problem first
    method: str = "strokes"
    weights: Path | None = None  # of the stroke predictor; None for the methods without one
    palette: tuple[RGB, ...] | None = None  # the only colours to paint with


def check(options: PaintOptions) -> PaintInputs:
    """Check all options and find the files that they name.

    Raises:
        RecipeError: flags that mean nothing, or nothing together.
        GToolError: a photo, stroke file, brush or weights that are not there, a place that cannot be written, a video
            without PyAV.
    """
    _check_values(options)
    _check_combinations(options)
    named = STYLES.get(options.style or "", {})
    options = replace(
        options, **{name: value for name, value in named.items() if getattr(options, name) is None}
    )
    _check_outputs(options.outputs)
    find_brush_mark(options.brush or BRUSHES[0])
    parse_color(options.canvas_color or "auto")
    palette = None if options.palette is None else read_palette(options.palette.expanduser())
    files = _name_files(_find_sources(options), options)
    inputs = (
        PaintInputs(options, files)
        if options.from_strokes
        else PaintInputs(options, files, *_find_method(options), palette)
    )
    if (options.colors or palette) and any(files.is_video for files in inputs.files):
        raise RecipeError(
            "--colors and --palette are for photos; frames of a video would each have their own"
        )
    if options.precision != "auto" and inputs.weights is None:
        console.notice("--precision has no effect: no network paints")
    return inputs


def _check_values(options: PaintOptions) -> None:
    for flag, value, known in (
        ("--method", options.method, METHODS),
        ("--select", options.select, SELECTIONS),
        ("--style", options.style, tuple(STYLES)),
    ):
        if value is not None and value not in known:
            raise RecipeError(f"{flag} `{value}` does not exist{did_you_mean(value, known)}")
    for flag, number in (("opacity", options.opacity), ("detail", options.detail), ("fps", options.fps)):
        if number is not None and not math.isfinite(number):
            raise RecipeError(f"--{flag} {number}: is not a number")
    if options.from_strokes is None and (options.max_side or 0) > LARGEST_PHOTO:
        raise RecipeError(
            f"--max-side {options.max_side}: photos are painted at up to {LARGEST_PHOTO} px; keep the strokes with "
            "--strokes FILE.json and render them larger with --from-strokes"
        )


def _check_combinations(options: PaintOptions) -> None:
    if options.method not in (None, "predictor"):
        for flag, given in (("--weights", options.weights), ("--select", options.select)):
            if given is not None:
                raise RecipeError(f"{flag} is for --method predictor; {options.method} needs no network")
    if options.colors is not None and options.palette is not None:
        raise RecipeError(
            "--colors and --palette exclude each other: one chooses colours, the other names them"
        )
    if (options.max_stroke or math.inf) < (options.min_stroke or 0):
        raise RecipeError(f"--max-stroke {options.max_stroke} is less than --min-stroke {options.min_stroke}")
    if options.plotter and options.svg is None:
        raise RecipeError("--plotter is for --svg FILE.svg")
    if options.plotter and not (options.from_strokes or options.colors or options.palette):
        raise RecipeError("--plotter needs paints: add --colors 12, or --palette FILE")
    if options.animate is None:
        names = [name for name in (options.out, *(options.photos or ())) if name]
        if options.frames is not None:
            raise RecipeError("--frames is for --animate FILE")
        if options.fps is not None and not any(is_video(Path(os.path.expanduser(name))) for name in names):
            raise RecipeError("--fps is for --animate FILE, or for a video")
    if options.from_strokes is None:
        return
    if options.photos:
        raise RecipeError("--from-strokes renders a stroke file and takes no photo")
    for name in _OF_PAINTING:
        if getattr(options, name) is not None and getattr(options, name) is not False:  # 0 is given
            flag = f"--{name.replace('_', '-')}"
            raise RecipeError(f"{flag} is for painting a photo; --from-strokes renders strokes as they are")
    if options.canvas_color == "auto":
        raise RecipeError("--canvas-color auto needs a photo; leave it out to keep the canvas of the strokes")


def _check_outputs(outputs: dict[str, str]) -> None:
    """Refuse suffixes that nothing is written as, and one file that is named for two things."""
    files = set()
    for flag, text in outputs.items():
        if text == "-":
            raise RecipeError(f"{flag} -: nothing is written to stdout; name a file, or a folder as ./-/")
        if is_folder(text):
            continue
        suffix, known = Path(text).suffix.lower(), _KINDS[flag][1]
        if suffix not in known:
            names = " or ".join(filter(None, (", ".join(known[:-1]), known[-1])))
            raise RecipeError(f"{flag} {text}: ends in {names}, or in / for a folder")
        if (place := os.path.abspath(os.path.expanduser(text))) in files:
            raise RecipeError(f"{flag} {text}: is named for two things")
        files.add(place)
        if flag == "--animate":
            check_animation(Path(text))
        elif suffix in VIDEO_FORMATS:
            require_av(Path(text))


def read_palette(path: Path) -> tuple[RGB, ...]:
    """Return the colours of a TOML file; DataError for anything else."""
    with reading(path, "palette", DataError):
        named = tomllib.loads(read_bytes(path).decode("utf-8-sig")).get("colors")
        if not isinstance(named, list) or not 2 <= len(named) <= MOST_COLORS:
            count = len(named) if isinstance(named, list) and named else "none"
            example = 'colors = ["#8a3b2c", "linen"]'
            raise ValueError(f"2 to {MOST_COLORS} `colors` are needed, and it has {count}: {example}")
        try:
            colors = [parse_color(str(name), "colour") for name in named]
        except RecipeError as bad:
            raise ValueError(str(bad)) from None
        if None in colors:
            raise ValueError("`auto` is no colour")
    return tuple(color for color in colors if color is not None)


def parse_color(text: str, what: str = "--canvas-color") -> RGB | None:
    """Return the colour of a name or of #rrggbb, None for `auto`; raises RecipeError for anything else."""
    if text == "auto":
        return None
    found = re.fullmatch(r"#([0-9a-f]{6}|[0-9a-f]{3})", CANVAS_COLORS.get(text.lower(), text.lower()))
    if found is None:
        hint = did_you_mean(text.lower(), ["auto", *CANVAS_COLORS])
        raise RecipeError(f"{what} `{text}`: is no colour; write #rrggbb or a name{hint}")
    digits = found[1] if len(found[1]) == 6 else "".join(2 * digit for digit in found[1])
    red, green, blue = (value / 255 for value in bytes.fromhex(digits))
    return red, green, blue


def find_brush_mark(brush: str) -> Path | None:
    """Return the picture of a brush mark that a file or folder holds, None for a built-in brush; else GToolError."""
    if brush in BRUSHES:
        return None
    path = Path(brush).expanduser()
    if not path.exists():
        if path.name == brush and not path.suffix:
            raise RecipeError(f"--brush `{brush}` does not exist{did_you_mean(brush, BRUSHES)}, or a folder")
        raise DataError(f"--brush {brush}: no such folder")
    found = find_photos([str(path)])
    if found[0].problem:
        raise DataError(f"--brush {found[0].path}: {found[0].problem}")
    # The name that the released code gives to its mark with upright bristles.
    upright = next((item.path for item in found if "vertical" in item.path.stem.lower()), None)
    if upright is None and len(found) > 1:
        raise DataError(
            f"--brush {brush}: holds {len(found)} pictures, none called `vertical`; name one of them"
        )
    return upright or found[0].path


def _find_method(options: PaintOptions) -> tuple[str, Path | None]:
    """Method and weights: by the predictor where there are weights of one, else by greedy search."""
    if options.weights is not None:
        weights = find_weights(options.weights)
        read_description(weights)  # refused before torch is imported
        return "predictor", weights
    shipped = shipped_weights(MODEL)
    if shipped is None and (options.method == "predictor" or options.select is not None):
        raise GToolError(
            "no trained weights come with this gtool; name a run with --weights, or use --method greedy"
        )
    method = options.method or ("predictor" if shipped else "greedy")
    return method, shipped if method == "predictor" else None


# Which files are made of which photo or video.


def _find_sources(options: PaintOptions) -> list[Found]:
    """Find what is to be painted: the photos and videos named, a stroke file, or the built-in scene."""
    if options.from_strokes is not None:
        path = options.from_strokes.expanduser()
        if not path.is_file():
            raise DataError(f"{path}: no such stroke file")
        return [Found(path)]
    if not options.photos:
        return [Found(SCENE)]
    found = find_photos(options.photos)
    left = [item for item in found if not (item.searched and _PAINTING.fullmatch(item.path.stem))]
    named = f"called as paintings (*{PAINTED}.*)"
    if not left:
        raise DataError(f"{options.photos[0]}: nothing but what is {named}")
    if len(left) < len(found):
        console.notice(f"left out {len(found) - len(left):,} of {len(found):,}, {named}")
    return left


def _name_files(found: Sequence[Found], options: PaintOptions) -> list[PaintingFiles]:
    """Name the files that are made of every source, and those that cannot be painted first, with their problems.

    Raises:
        GToolError: one file for several photos, what is made of pictures alone for a video, a video without PyAV, or
            why the only source cannot be painted.
    """
    outputs = options.outputs
    if len(found) > 1 or found[0].searched:
        photos = f"{len(found):,} photos need" if len(found) > 1 else "photos of a folder or pattern need"
        for flag, text in outputs.items():
            if not is_folder(text):
                raise RecipeError(f"{flag} {text}: {photos} a folder; name one that ends in /")
    sources = {os.path.realpath(item.path) for item in found}
    stems = _stems(found, options)
    files = [_files_of(item, stem, options, sources) for item, stem in zip(found, stems, strict=True)]
    if len(files) == 1 and files[0].problem:
        raise GToolError(files[0].problem)
    return sorted(files, key=lambda one: not one.problem)


def _stems(found: Sequence[Found], options: PaintOptions) -> Iterator[str]:
    """Names without suffix, different where two photos would be painted into one file."""
    if options.from_strokes is not None:
        yield f"{found[0].path.stem.removesuffix(PAINTED)}{PAINTED}-{options.max_side or DEFAULT_SIDE}"
        return
    into_folder = any(map(is_folder, options.outputs.values()))
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


def _files_of(item: Found, stem: str, options: PaintOptions, sources: set[str]) -> PaintingFiles:
    source, outputs, is_photo = item.path, options.outputs, bool(options.photos)
    usual = VIDEO_FORMATS[0] if is_photo and is_video(source) else next(iter(FORMATS))
    made = {"out": source.parent / f"{stem}{usual}"}
    for flag, text in outputs.items():
        path, (kind, suffixes) = Path(os.path.expanduser(text)), _KINDS[flag]
        suffix = usual if flag == "-o" else suffixes[0]
        made[kind] = path / item.below / f"{stem}{suffix}" if is_folder(text) else path
    files = PaintingFiles(source, made)
    if files.is_video and not is_photo:
        raise RecipeError(f"-o {files.picture}: a video is made of a video")
    if not item.problem and is_photo and (files.is_video or is_video(source)):
        _check_video(source, outputs)
    problem = (
        f"{item.written or source}: {item.problem}"
        if item.problem
        else _problem(files, options.force, sources)
    )
    if (
        not is_photo and options.from_strokes is None
    ):  # the scene is written beside its painting, to be compared
        source = files.picture.parent / SCENE
    return PaintingFiles(source, made, problem)


def _check_video(path: Path, outputs: dict[str, str]) -> None:
    for flag, text in outputs.items():
        if flag != "-o":
            raise RecipeError(f"{flag} is for pictures, not for videos")
        if not is_folder(text) and Path(text).suffix.lower() not in VIDEO_FORMATS:
            raise RecipeError(f"-o {text}: {path} is a video, which becomes {' or '.join(VIDEO_FORMATS)}")
    require_av(path)


def _problem(files: PaintingFiles, force: bool, sources: set[str]) -> str:
    """Say why the files cannot be made; empty when they can."""
    for path in files.made.values():
        if os.path.realpath(path) in sources:
            return f"{path}: is what is to be painted; choose another name"
        if problem := write_problem(path):
            return f"{path}: {problem}"
        if os.path.lexists(path) and not force:
            return f"{path}: exists; add --force to replace it, or choose another name"
    return ""
