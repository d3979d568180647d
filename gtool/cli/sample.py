"""`gtool sample`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gtool.cli.options import Device, Json

EXAMPLES = """Examples:

`gtool sample --num 64` : a grid of the newest run

`gtool sample runs/transgan-cifar10-000 --seeds 0,1,4-6 -o chosen.png`

`gtool sample --seeds 0,3,8 --interpolate 24 --animate walk.webp` : from image to image and back

`gtool sample weights.safetensors --num 5000 -o samples/` : separate PNG files"""


def sample(
    target: Annotated[
        str | None, typer.Argument(help="A run, weights, or a hub id; the newest run when left out.")
    ] = None,
    num: Annotated[
        int | None, typer.Option("--num", "-n", min=1, max=10**7, help="How many; default 64.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Which images: numbers and ranges, `0,1,4-6`.")] = None,
    seed: Annotated[int, typer.Option(help="With its number, all that an image depends on.")] = 0,
    interpolate: Annotated[
        int | None, typer.Option(min=1, help="Walk through the images in so many steps from one to the next.")
    ] = None,
    animate: Annotated[Path | None, typer.Option(help="Also write the walk as .webp, .gif or .mp4.")] = None,
    fps: Annotated[float, typer.Option(min=0.1, max=100, help="Frames a second of the animation.")] = 15.0,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="FILE.png for a grid, FOLDER/ for separate files.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the numbered files of a folder that is not empty.")
    ] = False,
    columns: Annotated[int | None, typer.Option(min=1, help="Images a row of the grid.")] = None,
    scale: Annotated[
        int | None, typer.Option(min=1, max=64, help="Enlarge pixels; default: grids comfortably, files not.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per forward.")] = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="`auto`, `bf16` or `fp32`.")] = "auto",
    as_json: Json = False,
) -> None:
    """Generate images: a grid, separate files, or a walk from image to image."""
    from gtool.commands.sample import Request
    from gtool.commands.sample import sample as run_sample

    request = Request(
        target=target,
        num=num,
        seeds=seeds,
        seed=seed,
        interpolate=interpolate,
        animate=animate,
        fps=fps,
        out=out,
        overwrite=overwrite,
        columns=columns,
        scale=scale,
        batch_size=batch_size,
        device=device,
        precision=precision,
        as_json=as_json,
    )
    run_sample(request)
