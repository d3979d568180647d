"""`gtool paint`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gtool.cli.options import OUTPUT, Device, Json, Precision

EXAMPLES = """Examples:

`gtool paint photo.jpg` : photo-painted.png beside it

`gtool paint` : the built-in picture, nothing needed

`gtool paint holiday/ -o painted/ --max-strokes 2000` : all photos of a folder and of those in it

`gtool paint photo.jpg -o portrait.webp --brush dry --canvas-color linen --detail 0.7`

`gtool paint photo.jpg --animate timelapse.webp --svg photo.svg --strokes photo.json`

`gtool paint holiday.mp4 -o painted.mp4` : every frame, with its sound; strokes of still places stay

`gtool paint --from-strokes photo.json --max-side 8192` : the same strokes, larger"""


def _option(panel: str, help: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


def paint(
    photos: Annotated[
        list[str] | None,
        typer.Argument(
            help="Photos, videos, folders (their photos), quoted patterns; the built-in picture when left out."
        ),
    ] = None,
    brush: Annotated[
        str | None,
        _option(
            "Strokes",
            "`flat`, `round`, `dry`, or a folder with a picture of a brush mark; default flat.",
        ),
    ] = None,
    detail: Annotated[
        float | None,
        _option("Strokes", "0 for broad strokes, 1 down to the pixels; default 0.5.", min=0, max=1),
    ] = None,
    max_strokes: Annotated[int | None, _option("Strokes", "Maximum number of strokes.", min=1)] = None,
    method: Annotated[
        str | None,
        _option(
            "Strokes",
            "`predictor` (a trained network), or without a network `greedy` or `random`; default predictor.",
        ),
    ] = None,
    select: Annotated[
        str | None,
        _option(
            "Strokes",
            "How the predictor's strokes are chosen: by the error they remove (`gain`) or by its own `decision`, "
            "which is faster; default gain.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        _option("Strokes", "A run, a weights file or a hub id; default the weights of the package."),
    ] = None,
    keep_all: Annotated[
        bool,
        _option(
            "Strokes",
            "Also paint strokes that do not bring the picture nearer to the photo.",
            "--keep-all",
            metavar="",
        ),
    ] = False,
    seed: Annotated[int, _option("Strokes", "Random seed.")] = 0,
    opacity: Annotated[
        float | None, _option("Canvas", "Opacity of the paint; default 1.", min=0.05, max=1)
    ] = None,
    canvas_color: Annotated[
        str | None,
        _option(
            "Canvas",
            "Color under the paint and under transparent parts: `auto` (mean of the photo), `white`, `black`, "
            "`grey`, `linen`, `kraft`, `cream`, `umber`, `slate` or `#rrggbb`; default auto.",
        ),
    ] = None,
    max_side: Annotated[
        int | None,
        _option(
            "Canvas",
            "Longer side in pixels: for photos the maximum (up to 8192), for stroke files exact; default 2048.",
            min=1,
            max=32768,
        ),
    ] = None,
    animate: Annotated[
        str | None,
        _option("Video", "Also write a timelapse of the painting: FILE.webp, .gif or .mp4, or FOLDER/."),
    ] = None,
    fps: Annotated[
        float | None,
        _option(
            "Video",
            "Frames per second: of the timelapse, default 24; of a painted video, default that of the source.",
            min=0.1,
            max=100,
        ),
    ] = None,
    frames: Annotated[
        int | None, _option("Video", "Number of frames of the timelapse; default 96.", min=2, max=10_000)
    ] = None,
    out: Annotated[
        str | None,
        _option(
            OUTPUT,
            "FILE.png, .jpg or .webp, for videos .mp4 or .webm, or FOLDER/; default beside the photo.",
            "--out",
            "-o",
        ),
    ] = None,
    svg: Annotated[
        str | None, _option(OUTPUT, "Also write the strokes as vectors: FILE.svg or FOLDER/.")
    ] = None,
    strokes: Annotated[
        str | None, _option(OUTPUT, "Also write the strokes to render again: FILE.json or FOLDER/.")
    ] = None,
    from_strokes: Annotated[
        Path | None, _option(OUTPUT, "Render such a stroke file at --max-side; takes no photo.")
    ] = None,
    force: Annotated[bool, _option(OUTPUT, "Replace files that exist.", "--force", metavar="")] = False,
    as_json: Json = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Turn photos and videos into paintings, stroke by stroke."""
    from gtool.paint.options import PaintOptions, check

    options = PaintOptions(
        photos=tuple(photos or ()),
        out=out,
        svg=svg,
        strokes=strokes,
        animate=animate,
        force=force,
        method=method,
        select=select,
        weights=weights,
        brush=brush,
        opacity=opacity,
        canvas_color=canvas_color,
        detail=detail,
        max_strokes=max_strokes,
        max_side=max_side,
        seed=seed,
        fps=fps,
        frames=frames,
        from_strokes=from_strokes,
        keep_all=keep_all,
        device=device,
        precision=precision,
        as_json=as_json,
    )
    inputs = check(options)
    from gtool.paint.run import run

    run(options, inputs)
