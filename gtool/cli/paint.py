"""`gtool paint`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gtool.cli.options import OUTPUT, Device, Json, Precision, option
from gtool.strokes.settings import BRUSHES

EXAMPLES = """Examples:

`gtool paint photo.jpg` : photo-painted.png beside it

`gtool paint` : the built-in picture, nothing needed

`gtool paint holiday/ -o painted/ --max-strokes 2000` : all photos of a folder and of those in it

`gtool paint photo.jpg -o portrait.webp --brush dry --canvas-color linen --detail 0.7`

`gtool paint photo.jpg --animate timelapse.webp --svg photo.svg --strokes photo.json`

`gtool paint holiday.mp4 -o painted.mp4` : every frame, with its sound; strokes stay where nothing moves

`gtool paint --from-strokes photo.json --max-side 8192` : the same strokes, larger"""


STROKES, CANVAS, VIDEO = "Strokes", "Canvas", "Video"
PHOTOS = "Photos, videos, folders (their photos), quoted patterns; the built-in picture when left out."
BRUSH = f"`{'`, `'.join(BRUSHES)}`, or a folder with a picture of a brush mark; default flat."
DETAIL = "From 0 (broad strokes) to 1 (fine strokes); default 0.5."
METHOD = "`predictor` (a trained network), or without a network `greedy` or `random`; default predictor."
SELECT = (
    "How the predictor's strokes are chosen: by the error they remove (`gain`) or by its own `decision`, which is "
    "faster; default gain."
)
WEIGHTS = "A run, a weights file or a hub id; default: the weights shipped with gtool."
CANVAS_COLOR = (
    "Color under the paint and under transparent parts: `auto` (mean of the photo), `white`, `black`, `grey`, "
    "`linen`, `kraft`, `cream`, `umber`, `slate` or `#rrggbb`; default auto."
)
MAX_SIDE = (
    "Longer side in pixels: of photos and videos the maximum (up to 8192), they are never enlarged; of stroke files "
    "exact; default 2048."
)
ANIMATE = "Also write a timelapse of the painting: FILE.webp, .gif or .mp4, or FOLDER/."
FPS = "Frames per second: of the timelapse, default 24; of a painted video, default that of the source."
OUT = "FILE.png, .jpg or .webp, for videos .mp4 or .webm, or FOLDER/; default beside the photo."
SVG = "Also write the strokes as vectors: FILE.svg or FOLDER/."
STROKE_FILE = "Also write the strokes to render again: FILE.json or FOLDER/."
FROM_STROKES = "Render a stroke file written by --strokes, at --max-side; takes no photo."

Text = str | None
Number = float | None
Count = int | None


def paint(
    photos: Annotated[list[str] | None, typer.Argument(help=PHOTOS)] = None,
    brush: Annotated[Text, option(STROKES, BRUSH)] = None,
    detail: Annotated[Number, option(STROKES, DETAIL, min=0, max=1)] = None,
    max_strokes: Annotated[Count, option(STROKES, "Maximum number of strokes.", min=1)] = None,
    method: Annotated[Text, option(STROKES, METHOD)] = None,
    select: Annotated[Text, option(STROKES, SELECT)] = None,
    weights: Annotated[Text, option(STROKES, WEIGHTS)] = None,
    keep_all: Annotated[
        bool, option(STROKES, "Also keep strokes that do not reduce the error.", "--keep-all")
    ] = False,
    seed: Annotated[Count, option(STROKES, "Random seed; default 0.")] = None,
    opacity: Annotated[Number, option(CANVAS, "Opacity of the paint; default 1.", min=0.05, max=1)] = None,
    canvas_color: Annotated[Text, option(CANVAS, CANVAS_COLOR)] = None,
    max_side: Annotated[Count, option(CANVAS, MAX_SIDE, min=1, max=32768)] = None,
    animate: Annotated[Text, option(VIDEO, ANIMATE)] = None,
    fps: Annotated[Number, option(VIDEO, FPS, min=0.1, max=100)] = None,
    frames: Annotated[
        Count,
        option(
            VIDEO, "Frames of the timelapse, no more than there are strokes; default 96.", min=2, max=10_000
        ),
    ] = None,
    out: Annotated[Text, option(OUTPUT, OUT, "--out", "-o")] = None,
    svg: Annotated[Text, option(OUTPUT, SVG)] = None,
    strokes: Annotated[Text, option(OUTPUT, STROKE_FILE)] = None,
    from_strokes: Annotated[Path | None, option(OUTPUT, FROM_STROKES)] = None,
    force: Annotated[bool, option(OUTPUT, "Replace files that exist.", "--force")] = False,
    as_json: Json = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Turn photos and videos into paintings, stroke by stroke."""
    arguments = dict(locals())  # the fields of PaintOptions
    from gtool.paint.options import PaintOptions, check

    options = PaintOptions(**arguments)
    inputs = check(options)
    from gtool.paint.run import run

    run(options, inputs)
