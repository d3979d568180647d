"""`gtool paint`: photographs and videos become paintings; strokes, vectors and a timelapse of them on request."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gtool import console
from gtool.data.synthetic.scenes import draw_scenes
from gtool.errors import DataError, GToolError, printable
from gtool.io.image_files import check_size
from gtool.io.photo import Photo, fitting, read_photo, save_photo, shrink
from gtool.io.video import VideoInfo, inspect_video
from gtool.models.paint_transformer.proposals import load_predictor
from gtool.paint.checks import DEFAULT_SIDE, LARGEST_PHOTO, PaintingFiles, PaintInputs, parse_color
from gtool.paint.options import PaintOptions
from gtool.paint.outputs import measure, write_files
from gtool.paint.painter import DEFAULT_DETAIL, Painter, open_brush
from gtool.paint.video import paint_video
from gtool.runtime.device import make_compute
from gtool.strokes.settings import METHODS, SELECTIONS, PaintSettings
from gtool.strokes.stroke_file import load_strokes

SCENE_SIDE, SCENE_NUMBER = 1024, 3
LARGEST_PAINTING = 32768  # pixels of the longer side
Record = dict[str, Any]


def run(inputs: PaintInputs) -> None:
    """Paint photos, videos, the built-in scene or a stroke file, and write what was asked for.

    inputs: of `check(options)`.

    Raises:
        GToolError: a photo, stroke file, brush or weights that cannot be used, a place that cannot be written.
    """
    start, options = time.perf_counter(), inputs.options
    failed = list[tuple[Path, str]]()
    settings: Record = {"method": inputs.method}
    if options.from_strokes is not None:
        records = [_render_stroke_file(options, inputs.files[0])]
    else:
        records = _paint_all(inputs, failed)
        settings |= {"seed": options.seed or 0}
        settings |= {"weights": str(inputs.weights)} if inputs.weights else {}
    if options.as_json:
        reasons = [{"in": str(source), "reason": printable(reason)} for source, reason in failed]
        seconds = round(time.perf_counter() - start, 2)
        console.result_json({**settings, "pictures": records, "failed": reasons, "seconds": seconds})
    if failed:
        raise GToolError(f"{len(failed):,} of {len(records) + len(failed):,} photos were not painted")


def _paint_all(inputs: PaintInputs, failed: list[tuple[Path, str]]) -> list[Record]:
    """Paint every photo and video; returns their records, and adds to those that failed, with the reasons."""
    options, count = inputs.options, len(inputs.files)
    records, painter = list[Record](), None
    for number, files in enumerate(inputs.files, 1):
        try:
            if files.problem:
                raise GToolError(files.problem)
            began = time.perf_counter()
            content = inspect_video(files.source) if files.is_video else _read(files, options)
        except GToolError as bad:
            _note(bad, files.source, failed, count)
            continue
        # What is wrong with brush or network concerns all pictures, and is raised. Loading them is no picture's time.
        reading = time.perf_counter() - began
        painter = painter or _open_painter(inputs)
        began = time.perf_counter() - reading
        label = (f"{number} of {count}, " if count > 1 else "") + str(files.source)
        try:
            with _enough_memory(files.source):
                record = _paint_one(options, painter, files, content, label)
                records.append(_report(options, files, record, began))
        except GToolError as bad:
            _note(bad, files.source, failed, count)
    return records


def _note(bad: GToolError, source: Path, failed: list[tuple[Path, str]], count: int) -> None:
    """Go on after a picture that could not be painted, where it is one of many."""
    if count == 1:
        raise bad
    console.warning(str(bad))
    failed.append((source, str(bad)))


def _open_painter(inputs: PaintInputs) -> Painter:
    """Load brush and predictor, and say what paints."""
    options = inputs.options
    settings = PaintSettings(
        method=METHODS[METHODS.index(inputs.method)],
        select=SELECTIONS[SELECTIONS.index(options.select or "gain")],
        keep_all=options.keep_all,
        max_strokes=options.max_strokes,
        opacity=1.0 if options.opacity is None else options.opacity,
        ground=parse_color(options.canvas_color or "auto"),
        seed=options.seed or 0,
    )
    detail = DEFAULT_DETAIL if options.detail is None else options.detail
    compute = make_compute(options.device, options.precision)
    predictor = None if inputs.weights is None else load_predictor(inputs.weights, compute)
    brush = open_brush(options.brush or "flat")
    network = "" if inputs.weights is None else f" {inputs.weights}, {compute.precision},"
    is_untrained = options.method is None and inputs.method == "greedy"
    remark = "; no trained weights come with this gtool yet" if is_untrained else ""
    console.notice(f"{inputs.method},{network} {brush.name} brush; {compute.describe()}{remark}")
    palette = options.colors if inputs.palette is None else torch.tensor(inputs.palette)
    scale = options.scale or 1
    limits = (options.min_stroke or 0) / scale, (options.max_stroke or math.inf) / scale
    return Painter(settings, detail, brush.to(compute.device), predictor, palette, limits)


def _read(files: PaintingFiles, options: PaintOptions) -> Photo:
    side = options.max_side or DEFAULT_SIDE
    if options.photos:
        photo = read_photo(files.source, side)
    else:
        photo = Photo(shrink(_scene().pixels, side), full_size=(SCENE_SIDE, SCENE_SIDE))
    for note in photo.notes:
        console.notice(f"{files.source}: {note}")
    scale = options.scale or 1
    longest = scale * max(photo.size)
    if longest > LARGEST_PAINTING:
        raise GToolError(
            f"{files.source}: --scale {scale} makes {longest} px of {max(photo.size)}; at most {LARGEST_PAINTING} px"
        )
    check_size(files.picture, *(scale * side for side in reversed(photo.size)))
    if scale == 1:
        _tell_size(files.source, photo.full_size or photo.size, photo.size, options.max_side)
    return photo


def _tell_size(source: Path, full: tuple[int, int], size: tuple[int, int], asked: int | None) -> None:
    """Say where a photo or video is smaller than --max-side, or is painted smaller without it."""
    if asked is not None and max(full) < asked:
        console.notice(
            f"{source}: {full[1]}x{full[0]} is not enlarged; --max-side is a maximum, --scale N enlarges"
        )
    elif asked is None and full != size:
        more = f"--max-side {min(max(full), LARGEST_PHOTO)} paints it larger"
        console.notice(f"{source}: {full[1]}x{full[0]} is painted at {size[1]}x{size[0]}; {more}")


def _scene() -> Photo:
    """The built-in picture."""
    scene = draw_scenes(np.array([SCENE_NUMBER]), SCENE_SIDE).images[0]
    return Photo(np.ascontiguousarray(scene.transpose(1, 2, 0)))


def _paint_one(
    options: PaintOptions, painter: Painter, files: PaintingFiles, content: Photo | VideoInfo, label: str
) -> Record:
    """Paint a photo or a video and write its files."""
    if isinstance(content, VideoInfo):
        side, compare = options.max_side or DEFAULT_SIDE, options.as_json
        _tell_size(
            files.source,
            (content.height, content.width),
            fitting(content.width, content.height, side)[::-1],
            options.max_side,
        )
        return paint_video(
            painter,
            files.source,
            files.picture,
            content,
            max_side=side,
            fps=options.fps,
            compare=compare,
            label=label,
        )
    with console.progress("painting") as update:
        painting = painter.paint(content, lambda done, total: update(done, total, label))
    text = {"method": painter.settings.method, "seed": str(painter.settings.seed)}
    height, width = (side * (options.scale or 1) for side in content.size)
    is_filled = parse_color(options.canvas_color or "auto") is not None
    kept = replace(content, alpha=None) if is_filled else content
    pixels = write_files(
        files.made, painting, (height, width), options.timing, options.plotter, photo=kept, text=text
    )
    if not options.photos and not files.source.exists():
        save_photo(files.source, _scene().pixels)  # beside its painting, to be compared
    record: Record = {"strokes": len(painting), "width": width, "height": height}
    return record | measure(painting, content, pixels) if options.as_json else record


def _render_stroke_file(options: PaintOptions, files: PaintingFiles) -> Record:
    """Render a stroke file, with what the options say about brush, opacity and ground in place of what it says."""
    began = time.perf_counter()
    painting = load_strokes(files.source, None if options.brush is None else open_brush(options.brush))
    painting = replace(
        painting if options.max_strokes is None else painting[: options.max_strokes],
        opacity=painting.opacity if options.opacity is None else options.opacity,
        ground=parse_color(options.canvas_color or "auto") or painting.ground,
    ).to(make_compute(options.device, "fp32").device)
    height, width = size = painting.size(options.max_side or DEFAULT_SIDE)
    check_size(files.picture, width, height)
    with _enough_memory(files.source):
        write_files(files.made, painting, size, options.timing, options.plotter)
    return _report(options, files, {"strokes": len(painting), "width": width, "height": height}, began)


def _report(options: PaintOptions, files: PaintingFiles, record: Record, began: float) -> Record:
    """Say what was made; returns the whole record of a picture."""
    seconds = time.perf_counter() - began
    made = {kind: str(path) for kind, path in files.made.items()}
    frames = f"{record['frames']:,} frames of " if "frames" in record else ""
    size = f"{record['width']}x{record['height']}"
    console.notice(f"{files.source}: {frames}{record['strokes']:,} strokes, {size}, {seconds:.1f} s")
    if not options.as_json:
        for path in made.values():
            console.result(path)
    return {"in": str(files.source), **made, **record, "seconds": round(seconds, 2)}


@contextmanager
def _enough_memory(source: Path) -> Iterator[None]:
    """Raise DataError that names the picture which is too large for the memory of this machine."""
    try:
        yield
    except (MemoryError, RuntimeError) as bad:
        text = str(bad).lower()
        if not isinstance(bad, MemoryError) and "out of memory" not in text and "allocate memory" not in text:
            raise
        raise DataError(f"{source}: not enough memory; lower --max-side or --detail") from None
