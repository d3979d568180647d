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

`gtool sample weights.safetensors --num 5000 -o samples/` : separate PNG files

With latent components (gansformer):

`gtool sample --psi 0.7 --seeds 0-15` : less variety, fewer failures; `--psi-sweep 0,0.3,0.5,0.7,1` compares

`gtool sample --attention` : what each component attends to, at every layer and head

`gtool sample --mix 3,8 --components 0-4` : two images swap components 0 to 4, and each alone

`gtool sample --mix 0-3:4-9 --layers 0-3` : columns 4 to 9 take the first layers of rows 0 to 3

`gtool sample --interpolate 12 --animate walk.webp --component 5` : one component moves, all else stays

`gtool sample --noise-variation` : what the noise inputs change

Composed of codes (prior):

`gtool sample --num 16 --temperature 1 --top-k 100 --top-p 0.95` : from label maps or classes of its own data set

`gtool sample --segmentation map.png --num 8` : several pictures of one map; `--class 3`, `--depth depth.png`

`gtool sample --complete half.png --keep 0.5` : the upper half is kept, the rest is drawn

`gtool sample --segmentation wide.png --size 512x256` : larger than trained

`gtool sample --num 9 --animate composing.webp` : code by code"""

CODES = "Composed of codes"
PARTS = "With latent components"


def sample(
    target: Annotated[
        str | None, typer.Argument(help="A run, weights, or a hub id; the newest run when left out.")
    ] = None,
    num: Annotated[
        int | None,
        typer.Option(
            "--num",
            "-n",
            min=1,
            max=10**7,
            help="How many; default 64, of a prior 16, of a --size 1, in sheets and walks 4 or 8.",
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Which images: numbers and ranges, `0,1,4-6`.")] = None,
    seed: Annotated[int, typer.Option(help="With its number, all that an image depends on.")] = 0,
    psi: Annotated[
        float,
        typer.Option(
            help="Truncation: pull w to its mean, each component to its own; 1 leaves all as it is.",
            rich_help_panel=PARTS,
        ),
    ] = 1.0,
    psi_sweep: Annotated[
        str | None,
        typer.Option(
            metavar="PSI,PSI,...", help="A row for each image, a column for each psi.", rich_help_panel=PARTS
        ),
    ] = None,
    attention: Annotated[
        bool,
        typer.Option(
            "--attention",
            help="Show every component's attention at each layer and head.",
            rich_help_panel=PARTS,
        ),
    ] = False,
    mix: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Swap parts of two images; of more, each with each; `ROWS:COLUMNS`: rows give to columns.",
            rich_help_panel=PARTS,
        ),
    ] = None,
    components: Annotated[
        str | None,
        typer.Option(
            "--components",
            "--component",
            help="Which --mix swaps, or move in a walk: `0-4`, `5`, `global`.",
            rich_help_panel=PARTS,
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Where --mix swaps: `0-3`, coarse ones first; default all.", rich_help_panel=PARTS),
    ] = None,
    space: Annotated[str, typer.Option(help="A walk goes through `z` or `w`.", rich_help_panel=PARTS)] = "z",
    noise_variation: Annotated[
        bool,
        typer.Option("--noise-variation", help="Show what other noise inputs change."),
    ] = False,
    of_class: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="CLASS", help="Of what class: a number or a name.", rich_help_panel=CODES
        ),
    ] = None,
    segmentation: Annotated[
        Path | None,
        typer.Option(
            metavar="MAP.png",
            help="Of what label map: grey or palette values, or painted in the set's colours.",
            rich_help_panel=CODES,
        ),
    ] = None,
    depth: Annotated[
        Path | None, typer.Option(metavar="MAP.png", help="Of what depth map.", rich_help_panel=CODES)
    ] = None,
    complete: Annotated[
        Path | None,
        typer.Option(
            metavar="PHOTO", help="Keep the upper part of this and draw the rest.", rich_help_panel=CODES
        ),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(help="Which share of it is kept, 0 to 1; default 0.5.", rich_help_panel=CODES),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Pixels, as trained or larger; default that of a map.",
            rich_help_panel=CODES,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Below 1 likelier codes; 0 the likeliest alone; default 1.", rich_help_panel=CODES),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(help="Draw from the k likeliest codes; default 100.", rich_help_panel=CODES),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="And from the fewest whose shares sum to p; default 1.", rich_help_panel=CODES),
    ] = None,
    interpolate: Annotated[
        int | None, typer.Option(min=1, help="Walk through the images in so many steps from one to the next.")
    ] = None,
    animate: Annotated[
        Path | None,
        typer.Option(help="Also write the walk, or how codes compose pictures, as .webp, .gif or .mp4."),
    ] = None,
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
    """Generate images: a grid, separate files, a walk, a look at their parts; from maps, classes or half a photo."""
    from gtool.sample.options import Request
    from gtool.sample.run import sample as run_sample

    request = Request(
        target=target,
        num=num,
        seeds=seeds,
        seed=seed,
        psi=psi,
        psi_sweep=psi_sweep,
        mix=mix,
        components=components,
        layers=layers,
        interpolate=interpolate,
        animate=animate,
        space=space,
        fps=fps,
        noise_variation=noise_variation,
        attention=attention,
        of_class=of_class,
        segmentation=segmentation,
        depth=depth,
        complete=complete,
        keep=keep,
        size=size,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
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
