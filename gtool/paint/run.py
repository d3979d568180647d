"""`gtool paint`: photographs and clips become paintings; strokes, vectors and the making of them on request."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.errors import DataError, GToolError, RecipeError, did_you_mean
from gtool.io.image_files import check_size, find_photos
from gtool.io.run_folder import find_weights, shipped_weights
from gtool.io.video import Survey, is_clip, survey
from gtool.paint.outputs import (
    PAINTED,
    Failure,
    Job,
    Outputs,
    check_outputs,
    plan_jobs,
    plan_one,
    shown,
    without_paintings,
)
from gtool.runtime import PRECISIONS
from gtool.strokes.settings import BRUSHES, METHODS, SELECTIONS

if TYPE_CHECKING:
    from gtool.io.photo import Photo, Pixels
    from gtool.paint.painter import Animation, Studio

MODEL = "paint-transformer"
GROUNDS = {
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
DEFAULT_FPS, DEFAULT_FRAMES = 24.0, 96
SCENE, SCENE_SIDE, SCENE_NUMBER = Path("scene.png"), 1024, 3


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line of `gtool paint`, as typed; None where a flag was not given."""

    photos: tuple[str, ...] = ()
    outputs: Outputs = field(default_factory=Outputs)
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


@dataclass
class Report:
    """What became of the pictures of a call."""

    records: list[dict[str, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def add(self, failure: Failure) -> None:
        """Note a picture that was not painted, and say why."""
        console.warning(failure.text)
        self.failures.append(failure)


def paint(request: Request) -> None:
    """Paint photos, the built-in scene or a stroke file, and write what was asked for.

    Raises:
        RecipeError: flags that mean nothing, or nothing together.
        GToolError: a photo, stroke file, brush or weights that cannot be used, a place that cannot be written.
    """
    start = time.perf_counter()
    strokes = request.from_strokes
    try:
        _refuse_mixtures(request)
        check_outputs(request.outputs)
        report = _paint_photos(request) if strokes is None else _render_strokes(strokes, request)
    except GToolError as bad:
        bad.args = (shown(str(bad)),)  # whatever a file is called, an error is one line
        raise
    if request.as_json:
        failed = [{"in": str(bad.source), "reason": bad.text} for bad in report.failures]
        seconds = round(time.perf_counter() - start, 2)
        made = {"pictures": report.records, "failed": failed, "seconds": seconds}
        console.result_json(report.settings | made)
    if report.failures:
        total = len(report.records) + len(report.failures)
        raise GToolError(f"{len(report.failures):,} of {total:,} photos were not painted")


# What was asked for, without torch.


def _refuse_mixtures(request: Request) -> None:
    _require_known("--method", request.method, METHODS)
    _require_known("--select", request.select, SELECTIONS)
    _require_known("--precision", request.precision, PRECISIONS)
    for flag, value in (("opacity", request.opacity), ("detail", request.detail), ("fps", request.fps)):
        if value is not None and not math.isfinite(value):
            raise RecipeError(f"--{flag} {value}: is not a number")
    if request.method not in (None, "predictor"):
        for flag, given in (("--weights", request.weights), ("--select", request.select)):
            if given is not None:
                raise RecipeError(f"{flag} is for --method predictor; {request.method} needs no network")
    if request.outputs.animate is None:
        if request.frames is not None:
            raise RecipeError("--frames is for --animate FILE")
        if request.fps is not None and not _names_clip(request):
            raise RecipeError("--fps is for --animate FILE, or for a clip")
    if request.from_strokes is not None:
        _refuse_with_strokes(request)
    elif request.max_side is not None and request.max_side > LARGEST_PHOTO:
        raise RecipeError(
            f"--max-side {request.max_side}: photos are painted at up to {LARGEST_PHOTO} px; keep the strokes "
            "with --strokes FILE.json and render them larger with --from-strokes"
        )


def _names_clip(request: Request) -> bool:
    named = [request.outputs.out, *request.photos]
    return any(is_clip(Path(text).expanduser()) for text in named if text)


def _require_known(flag: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise RecipeError(f"{flag} `{shown(value)}` does not exist{did_you_mean(value, known)}")


def _refuse_with_strokes(request: Request) -> None:
    if request.photos:
        raise RecipeError("--from-strokes renders a stroke file and takes no photo")
    about_photos = {
        "--method": request.method,
        "--select": request.select,
        "--weights": request.weights,
        "--detail": request.detail,
        "--keep-all": request.keep_all or None,
    }
    for flag, value in about_photos.items():
        if value is not None:
            raise RecipeError(f"{flag} is for painting a photo; --from-strokes renders strokes as they are")
    if request.canvas_color == "auto":
        raise RecipeError("--canvas-color auto needs a photo; leave it out to keep the canvas of the strokes")


def _ground(text: str | None) -> tuple[float, float, float] | None:
    if text is None or text == "auto":
        return None
    found = re.fullmatch(r"#([0-9a-f]{6}|[0-9a-f]{3})", GROUNDS.get(text.lower(), text.lower()))
    if found is None:
        hint = did_you_mean(text.lower(), ["auto", *GROUNDS])
        raise RecipeError(f"--canvas-color `{shown(text)}`: is no colour; write #rrggbb or a name{hint}")
    digits = found[1] if len(found[1]) == 6 else "".join(2 * digit for digit in found[1])
    red, green, blue = (int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4))
    return red, green, blue


def _brush(text: str) -> dict[str, Any]:
    """Return name and, of a brush of the user's own, ink."""
    if text in BRUSHES:
        return {"brush": text}
    path = Path(text).expanduser()
    if not path.exists():
        if path.name == text and not path.suffix:
            raise RecipeError(
                f"--brush `{shown(text)}` does not exist{did_you_mean(text, BRUSHES)}, or a folder"
            )
        raise DataError(f"--brush {shown(text)}: no such folder")
    found = find_photos([str(path)])
    if found[0].problem:
        raise DataError(shown(f"--brush {found[0].path}: {found[0].problem}"))
    from gtool.io.photo import read_ink

    # The name that the released code gives to its mark with upright bristles.
    chosen = next((item.path for item in found if "vertical" in item.path.stem.lower()), found[0].path)
    return {"brush": f"{path.resolve().name}/", "ink": read_ink(chosen)}


def _looks(request: Request) -> dict[str, Any]:
    """What was said about brush and paint: fields of a style or of a painting."""
    said: dict[str, Any] = {} if request.brush is None else _brush(request.brush)
    if request.opacity is not None:
        said["opacity"] = request.opacity
    if (ground := _ground(request.canvas_color)) is not None:
        said["ground"] = ground
    return said


def _method(request: Request) -> dict[str, Any]:
    """Decide how strokes are found: fields of a style."""
    if request.weights is not None:
        return {"method": "predictor", "weights": find_weights(request.weights)}
    shipped = shipped_weights(MODEL)
    if shipped is None and (request.method == "predictor" or request.select is not None):
        raise GToolError(
            "no trained weights come with this gtool; name a run with --weights, or use --method greedy"
        )
    method = request.method or ("predictor" if shipped else "greedy")
    return {"method": method, "weights": shipped if method == "predictor" else None}


def _animation(request: Request) -> Animation:
    from gtool.paint.painter import Animation

    return Animation(request.frames or DEFAULT_FRAMES, request.fps or DEFAULT_FPS)


# Photos, or the built-in scene where none is named.


def _paint_photos(request: Request) -> Report:
    said = _looks(request)
    jobs, failures = _jobs(request)
    said |= _method(request)
    report = Report()
    for failure in failures:
        report.add(failure)
    alone = len(jobs) + len(failures) == 1
    studio = None
    for number, job in enumerate(jobs, 1):
        began = time.perf_counter()
        photo: Photo | Survey | None = None
        with _bearing(report, job, alone):
            photo = survey(job.source) if job.is_clip else _read(job, request)
        if photo is None:
            continue
        reading = time.perf_counter() - began
        studio = studio or _open(request, said)  # what is wrong with it concerns all pictures
        place = f"{number} of {len(jobs)}, " if len(jobs) > 1 else ""
        with _bearing(report, job, alone):
            began = time.perf_counter() - reading
            if isinstance(photo, Survey):
                record = _paint_frames(request, studio, job, photo, place, began)
            else:
                record = _paint_one(request, studio, job, photo, place, began)
            report.records.append(record)
    report.settings = {"method": said["method"], "seed": request.seed}
    if said["weights"] is not None:
        report.settings["weights"] = str(said["weights"])
    return report


@contextmanager
def _bearing(report: Report, job: Job, alone: bool) -> Iterator[None]:
    """Note what is wrong with one picture of several and go on; with the only one it stops the call."""
    try:
        yield
    except GToolError as bad:
        if alone:
            raise
        report.add(Failure(job.source, shown(str(bad))))


def _jobs(request: Request) -> tuple[list[Job], list[Failure]]:
    if not request.photos:
        job = plan_one(SCENE, f"{SCENE.stem}{PAINTED}", request.outputs)
        return [replace(job, source=job.out.parent / SCENE)], []
    found = find_photos(request.photos)
    left = without_paintings(found)
    if not left:
        raise DataError(f"{shown(request.photos[0])}: nothing but what is called as paintings (*{PAINTED}.*)")
    if len(left) < len(found):
        console.notice(
            f"left out {len(found) - len(left):,} of {len(found):,}, called as paintings (*{PAINTED}.*)"
        )
    return plan_jobs(left, request.outputs)


def _read(job: Job, request: Request) -> Photo:
    from gtool.io.photo import Photo, read_photo, shrink

    side = request.max_side or DEFAULT_SIDE
    if not request.photos:
        return Photo(shrink(_scene(), side))
    photo = read_photo(job.source, side)
    for note in photo.notes:
        console.notice(f"{shown(job.source)}: {note}")
    check_size(job.out, *reversed(photo.size))
    return photo


def _scene() -> Pixels:
    import numpy as np

    from gtool.data.synthetic.scenes import draw_scenes

    scene = draw_scenes(np.array([SCENE_NUMBER]), SCENE_SIDE).images[0]
    return np.ascontiguousarray(scene.transpose(1, 2, 0))  # (H, W, 3)


def _open(request: Request, said: dict[str, Any]) -> Studio:
    from gtool.paint.painter import Style, open_studio

    flags = {"select": request.select, "detail": request.detail, "max_strokes": request.max_strokes}
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    style = Style(**said, **given, keep_all=request.keep_all, seed=request.seed)
    untrained = request.method is None and style.method == "greedy"
    remark = "; no trained weights come with this gtool yet" if untrained else ""
    return open_studio(style, request.device, request.precision, remark)


def _paint_one(
    request: Request, studio: Studio, job: Job, photo: Photo, place: str, began: float
) -> dict[str, Any]:
    """Paint a photo, write its files and say so; returns its record."""
    from gtool.io.photo import save_photo
    from gtool.paint.painter import enough_memory, measure, write_files

    name = shown(job.source)
    with enough_memory(job.source):
        with console.progress("painting") as update:
            painting = studio.paint(photo, lambda done, total: update(done, total, f"{place}{name}"))
        text = {"method": studio.style.method, "seed": str(request.seed)}
        pixels = write_files(
            job, painting, studio.brush, photo.size, photo=photo, animation=_animation(request), text=text
        )
        record = _record(job, len(painting), photo.size, began)
        if request.as_json:
            record |= measure(painting, studio.brush, photo, pixels)
    if not request.photos and not job.source.exists():
        save_photo(job.source, _scene())  # beside its painting, to be compared
    _announce(request, job, record)
    return record


def _paint_frames(
    request: Request, studio: Studio, job: Job, found: Survey, place: str, began: float
) -> dict[str, Any]:
    """Paint a clip, write it and say so; returns its record."""
    from gtool.paint.painter import enough_memory
    from gtool.paint.video import paint_clip

    with enough_memory(job.source):
        made = paint_clip(
            studio,
            job,
            found,
            at_most=request.max_side or DEFAULT_SIDE,
            fps=request.fps,
            compare=request.as_json,
            place=place,
        )
    record = _record(job, made.pop("strokes"), (made.pop("height"), made.pop("width")), began) | made
    _announce(request, job, record)
    return record


# Strokes.


def _render_strokes(path: Path, request: Request) -> Report:
    """Render a stroke file at any size."""
    path = path.expanduser()
    if not path.is_file():
        raise DataError(f"{shown(path)}: no such stroke file")
    said = _looks(request)
    side = request.max_side or DEFAULT_SIDE
    job = plan_one(path, f"{path.stem.removesuffix(PAINTED)}{PAINTED}-{side}", request.outputs)
    from gtool.paint.painter import enough_memory, open_strokes, write_files

    began = time.perf_counter()
    painting, brush = open_strokes(path, said, request.max_strokes, request.device)
    size = painting.size(side)
    check_size(job.out, *reversed(size))
    with enough_memory(path):
        write_files(job, painting, brush, size, animation=_animation(request))
    record = _record(job, len(painting), size, began)
    _announce(request, job, record)
    return Report([record], settings={"method": "strokes"})


# What is said.


def _record(job: Job, strokes: int, size: tuple[int, int], began: float) -> dict[str, Any]:
    height, width = size
    files = {kind: str(path) for kind, path in job.files.items()}
    seconds = round(time.perf_counter() - began, 2)
    return {
        "in": str(job.source),
        **files,
        "strokes": strokes,
        "seconds": seconds,
        "width": width,
        "height": height,
    }


def _announce(request: Request, job: Job, record: dict[str, Any]) -> None:
    size = f"{record['width']}x{record['height']}"
    frames = f"{record['frames']:,} frames of " if "frames" in record else ""
    strokes = f"{frames}{record['strokes']:,} strokes"
    console.notice(f"{shown(job.source)}: {strokes}, {size}, {record['seconds']:.1f} s")
    if not request.as_json:
        for path in job.files.values():
            console.result(str(path).encode("utf-8", "backslashreplace").decode())
