"""The options of `gtool paint`, and everything about them that can be checked before torch is imported."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gtool import console
from gtool.errors import DataError, GToolError, RecipeError, did_you_mean
from gtool.io.image_files import find_photos
from gtool.io.run_folder import find_weights, shipped_weights
from gtool.io.video_formats import is_video
from gtool.models import registry
from gtool.paint.paths import PAINTED, PaintingFiles, check_outputs, files_of, files_of_photos, is_painting
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


@dataclass(frozen=True, kw_only=True)
class PaintOptions:
    """The command line of `gtool paint`; None where a flag was not given."""

    photos: Sequence[str] | None = None
    out: str | None = None
    svg: str | None = None
    strokes: str | None = None
    animate: str | None = None
    force: bool = False
    method: str | None = None
    select: str | None = None
    weights: str | None = None
    brush: str | None = None
    opacity: float | None = None
    canvas_color: str | None = None
    detail: float | None = None
    max_strokes: int | None = None
    max_side: int | None = None
    seed: int = 0
    fps: float | None = None
    frames: int | None = None
    from_strokes: Path | None = None
    keep_all: bool = False
    device: str = "auto"
    precision: str = "auto"
    as_json: bool = False

    @property
    def outputs(self) -> dict[str, str]:
        """The files and folders that were named, by their flags."""
        flags = {"-o": self.out, "--svg": self.svg, "--strokes": self.strokes, "--animate": self.animate}
        return {flag: text for flag, text in flags.items() if text is not None}


@dataclass(frozen=True)
class PaintInputs:
    """What the options name, found and checked; no pixel is read yet."""

    files: list[PaintingFiles]
    failed: list[tuple[Path, str]]  # photos that cannot be painted, each with the reason
    method: str = "strokes"
    weights: Path | None = None  # of the stroke predictor; None for the methods without one


def check(options: PaintOptions) -> PaintInputs:
    """Check all options and find the files that they name.

    Raises:
        RecipeError: flags that mean nothing, or nothing together.
        GToolError: a photo, stroke file, brush or weights that are not there, a place that cannot be written.
    """
    _check_values(options)
    _check_combinations(options)
    outputs, force = options.outputs, options.force
    check_outputs(outputs)
    find_brush_mark(options.brush or BRUSHES[0])
    parse_color(options.canvas_color or "auto")
    if options.from_strokes is not None:
        path = options.from_strokes.expanduser()
        if not path.is_file():
            raise DataError(f"{path}: no such stroke file")
        stem = f"{path.stem.removesuffix(PAINTED)}{PAINTED}-{options.max_side or DEFAULT_SIDE}"
        return PaintInputs([files_of(path, stem, outputs, force)], [])
    if options.photos:
        found = find_photos(options.photos)
        left = [item for item in found if not is_painting(item)]
        named = f"called as paintings (*{PAINTED}.*)"
        if not left:
            raise DataError(f"{options.photos[0]}: nothing but what is {named}")
        if len(left) < len(found):
            console.notice(f"left out {len(found) - len(left):,} of {len(found):,}, {named}")
        files, failed = files_of_photos(left, outputs, force)
    else:
        scene = files_of(SCENE, f"{SCENE.stem}{PAINTED}", outputs, force)
        files, failed = [replace(scene, source=scene.picture.parent / SCENE)], []
    return PaintInputs(files, failed, *_find_method(options))


def _check_values(options: PaintOptions) -> None:
    for flag, value, known in (
        ("--method", options.method, METHODS),
        ("--select", options.select, SELECTIONS),
    ):
        if value is not None and value not in known:
            raise RecipeError(f"{flag} `{value}` does not exist{did_you_mean(value, known)}")
    for flag, number in (("opacity", options.opacity), ("detail", options.detail), ("fps", options.fps)):
        if number is not None and not math.isfinite(number):
            raise RecipeError(f"--{flag} {number}: is not a number")
    side = options.max_side or 0
    if options.from_strokes is None and side > LARGEST_PHOTO:
        raise RecipeError(
            f"--max-side {side}: photos are painted at up to {LARGEST_PHOTO} px; keep the strokes with "
            "--strokes FILE.json and render them larger with --from-strokes"
        )


def _check_combinations(options: PaintOptions) -> None:
    if options.method not in (None, "predictor"):
        for flag, given in (("--weights", options.weights), ("--select", options.select)):
            if given is not None:
                raise RecipeError(f"{flag} is for --method predictor; {options.method} needs no network")
    if options.animate is None:
        names = [name for name in (options.out, *(options.photos or ())) if name]
        if options.frames is not None:
            raise RecipeError("--frames is for --animate FILE")
        if options.fps is not None and not any(is_video(Path(name).expanduser()) for name in names):
            raise RecipeError("--fps is for --animate FILE, or for a video")
    if options.from_strokes is None:
        return
    if options.photos:
        raise RecipeError("--from-strokes renders a stroke file and takes no photo")
    for flag in ("method", "select", "weights", "detail", "keep_all"):
        if getattr(options, flag) is not None and getattr(options, flag) is not False:
            name = flag.replace("_", "-")
            raise RecipeError(f"--{name} is for painting a photo; --from-strokes renders strokes as they are")
    if options.canvas_color == "auto":
        raise RecipeError("--canvas-color auto needs a photo; leave it out to keep the canvas of the strokes")


def parse_color(text: str) -> RGB | None:
    """Return the colour of a name or of #rrggbb, None for `auto`; raises RecipeError for anything else."""
    if text == "auto":
        return None
    found = re.fullmatch(r"#([0-9a-f]{6}|[0-9a-f]{3})", CANVAS_COLORS.get(text.lower(), text.lower()))
    if found is None:
        hint = did_you_mean(text.lower(), ["auto", *CANVAS_COLORS])
        raise RecipeError(f"--canvas-color `{text}`: is no colour; write #rrggbb or a name{hint}")
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
    return next((item.path for item in found if "vertical" in item.path.stem.lower()), found[0].path)


def _find_method(options: PaintOptions) -> tuple[str, Path | None]:
    """Method and weights: by the predictor where there are weights of one, else by greedy search."""
    if options.weights is not None:
        return "predictor", find_weights(options.weights)
    shipped = shipped_weights(MODEL)
    if shipped is None and (options.method == "predictor" or options.select is not None):
        raise GToolError(
            "no trained weights come with this gtool; name a run with --weights, or use --method greedy"
        )
    method = options.method or ("predictor" if shipped else "greedy")
    return method, shipped if method == "predictor" else None
