"""`gtool paint`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gtool.cli.options import Device, Json

EXAMPLES = """Examples:

`gtool paint photo.jpg` : photo-painted.png beside it

`gtool paint` : the built-in scene, nothing needed

`gtool paint holiday/ -o painted/ --max-strokes 2000` : all photos of a folder and of those in it

`gtool paint photo.jpg -o portrait.webp --brush dry --canvas-color linen --detail 0.7`

`gtool paint photo.jpg --animate making-of.webp --svg photo.svg --strokes photo.json`

`gtool paint clip.mp4 -o clip-painted.mp4` : every frame, with its sound; strokes of still places stay

`gtool paint --from-strokes photo.json --max-side 8192` : the same strokes, larger"""


def paint(
    photos: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pictures, clips, folders (their pictures alone), quoted patterns; a built-in scene when left out."
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="FILE.png, .jpg or .webp, for clips .mp4 or .webm, or FOLDER/; default beside the photo.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")] = False,
    brush: Annotated[
        str | None,
        typer.Option(
            help="`flat`, `round`, `dry`, or a folder with a picture of a brush mark; default flat."
        ),
    ] = None,
    detail: Annotated[
        float | None, typer.Option(min=0, max=1, help="0 broad strokes, 1 down to the pixels; default 0.5.")
    ] = None,
    opacity: Annotated[float | None, typer.Option(min=0.05, max=1, help="Of the paint; default 1.")] = None,
    canvas_color: Annotated[
        str | None,
        typer.Option(
            help="Under the paint and what is transparent: `auto` (mean of the photo), `white`, `black`, `grey`, "
            "`linen`, `kraft`, `cream`, `umber`, `slate` or `#rrggbb`; default auto."
        ),
    ] = None,
    max_strokes: Annotated[int | None, typer.Option(min=1, help="Paint no more strokes than these.")] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=32768,
            help="Longer side in pixels: at most for photos (to 8192), exact for strokes; default 2048.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Other strokes for the same photo.")] = 0,
    animate: Annotated[
        str | None, typer.Option(help="Also show the making of it: FILE.webp, .gif or .mp4, or FOLDER/.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=100, help="Frames a second of that, default 24; of a clip, default its own."
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=2, max=10_000, help="How many until it is finished; default 96.")
    ] = None,
    svg: Annotated[
        str | None, typer.Option(help="Also write the strokes as vectors: FILE.svg or FOLDER/.")
    ] = None,
    strokes: Annotated[
        str | None, typer.Option(help="Also write the strokes to render again: FILE.json or FOLDER/.")
    ] = None,
    from_strokes: Annotated[
        Path | None, typer.Option(help="Render such a file at --max-side; takes no photo.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="`predictor`, or without a network `greedy` or `random`; default predictor."),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(help="How the predictor's strokes are chosen: `gain` or `decision`, which is faster."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="A run, a weights file or a hub id; default those of the package.")
    ] = None,
    keep_all: Annotated[
        bool,
        typer.Option("--keep-all", help="Paint also strokes that bring the picture no nearer to the photo."),
    ] = False,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="`auto`, `bf16` or `fp32`.")] = "auto",
    as_json: Json = False,
) -> None:
    """Turn photographs and clips into paintings, stroke by stroke."""
    from gtool.paint.outputs import Outputs
    from gtool.paint.run import Request
    from gtool.paint.run import paint as run_paint

    request = Request(
        photos=tuple(photos or ()),
        outputs=Outputs(out=out, svg=svg, strokes=strokes, animate=animate, force=force),
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
    run_paint(request)
