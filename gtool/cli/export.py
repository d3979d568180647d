"""`gtool export`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gtool.cli.options import OUTPUT, Json, option

EXAMPLES = """Examples:

`gtool export --format onnx` : the newest run; z to images, any batch, checked with onnxruntime

`gtool export runs/transgan-cifar10-000 -o generator.pt2`

`gtool export runs/transgan-cifar10-000 -o mine.safetensors` : one file to share, enough for `gtool sample`

`gtool export runs/paint-transformer-scenes-000 -o predictor.onnx` : patches of photo and canvas to strokes

`gtool export runs/vqgan-scenes-000 --format onnx` : two files, images to codes and codes to images; a prior makes
three

`gtool export released.pth --from transgan -o transgan.safetensors` : a checkpoint of the original code

`gtool export network.pkl --from gansformer` : a pickle of the original code, read without executing it"""


def export(
    target: Annotated[
        str | None, typer.Argument(help="A run, weights, or a hub id; the newest run when left out.")
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            rich_help_panel=OUTPUT,
            help="`safetensors`, `onnx` or `pt2`. Default: by the suffix of --out, else safetensors.",
        ),
    ] = None,
    out: Annotated[Path | None, option(OUTPUT, "File to write, or a folder for it.", "--out", "-o")] = None,
    source: Annotated[
        str | None,
        option("Source", "TARGET is an original checkpoint of this model, or of `taming`.", "--from"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a trained network as one file for other programs, and check the file by running it."""
    from gtool.export.options import ExportOptions, check

    options = ExportOptions(target=target, file_format=file_format, out=out, source=source, as_json=as_json)
    files = check(options)
    from gtool.export.run import run

    run(options, files)
