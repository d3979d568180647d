"""`gtool sample`: its options."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gtool.cli.options import DEVICE, OUTPUT, Device, Json, Precision

EXAMPLES = "\n\n".join(
    [
        "Examples:",
        "`gtool sample --num 64` : a grid of the newest run",
        "`gtool sample runs/transgan-cifar10-000 --seeds 0,1,4-6 -o chosen.png`",
        "`gtool sample --seeds 0,3,8 --interpolate 24 --animate loop.webp` : from image to image and back",
        "`gtool sample weights.safetensors --num 5000 -o samples/` : separate PNG files",
        "Latents (gansformer):",
        "`gtool sample --psi 0.7 --seeds 0-15` : less variety, fewer failures; `--psi-sweep 0,0.3,0.5,0.7,1` compares",
        "`gtool sample --attention` : what each component attends to, at every layer and head",
        "`gtool sample --mix 3,8 --components 0-4` : two images swap components 0 to 4, together and one by one",
        "`gtool sample --mix 0-3:4-9 --layers 0-3` : columns 4 to 9 take the first layers of rows 0 to 3",
        "`gtool sample --interpolate 12 --component 5` : one component changes, all else stays",
        "`gtool sample --noise-variation` : what the noise inputs change",
        "Codes (prior):",
        "`gtool sample --num 16 --temperature 1 --top-k 100 --top-p 0.95` : conditioned as its own data set",
        "`gtool sample --segmentation map.png --num 8` : several images of one map; `--class 3`, `--depth depth.png`",
        "`gtool sample --complete half.png --keep 0.5` : the upper half is kept, the rest is sampled",
        "`gtool sample --segmentation wide.png --size 512x256` : larger than trained",
        "`gtool sample --num 9 --animate codes.webp` : code by code",
    ]
)

# Options by the panel of the help page.
what = partial(typer.Option, rich_help_panel="What to sample")
latents = partial(typer.Option, rich_help_panel="Latents (of models that sample from latents)")
codes = partial(typer.Option, rich_help_panel="Conditions (of priors, which sample codes)")
output = partial(typer.Option, rich_help_panel=OUTPUT)


def sample(
    target: Annotated[
        str | None, typer.Argument(help="A run, a weights file or a hub id; default: the newest run.")
    ] = None,
    num: Annotated[
        int | None,
        what(
            "--num",
            "-n",
            min=1,
            max=10**7,
            help="Number of images. Default: 64; 16 for a prior; 4 or 8 for --interpolate, --attention and the like.",
        ),
    ] = None,
    seeds: Annotated[
        str | None, what(metavar="0,1,4-6", help="Numbers of the images, in place of --num.")
    ] = None,
    seed: Annotated[
        int, what(metavar="N", help="Random seed; an image depends on it and on its number.")
    ] = 0,
    interpolate: Annotated[
        int | None,
        what(metavar="STEPS", min=1, help="Interpolate from each image to the next in so many steps."),
    ] = None,
    psi: Annotated[
        float, latents(help="Truncation: pull w to its mean, each component to its own; 1 is off.")
    ] = 1.0,
    psi_sweep: Annotated[
        str | None, latents(metavar="PSI,PSI,...", help="A row for each image, a column for each psi.")
    ] = None,
    attention: Annotated[
        bool,
        latents("--attention", help="Show every component's attention at each layer and head."),
    ] = False,
    mix: Annotated[
        str | None,
        latents(
            metavar="A,B",
            help="Mix styles: A,B swaps two images; `SOURCES:TARGETS` gives a table, sources as rows.",
        ),
    ] = None,
    components: Annotated[
        str | None,
        latents(
            "--components",
            "--component",
            metavar="0-4,global",
            help="Components that --mix swaps or --interpolate changes.",
        ),
    ] = None,
    layers: Annotated[
        str | None, latents(metavar="0-3", help="Layers where --mix swaps, coarse ones first; default all.")
    ] = None,
    space: Annotated[str, latents(help="Latent space of --interpolate: `z` or `w`.")] = "z",
    noise_variation: Annotated[
        bool, latents("--noise-variation", help="Show how the images vary with the noise inputs.")
    ] = False,
    of_class: Annotated[
        str | None, codes("--class", metavar="CLASS", help="Class: a number or a name.")
    ] = None,
    segmentation: Annotated[
        Path | None,
        codes(metavar="MAP.png", help="Label map: grey or palette values, or the data set's colours."),
    ] = None,
    depth: Annotated[Path | None, codes(metavar="MAP.png", help="Depth map.")] = None,
    complete: Annotated[
        Path | None, codes(metavar="IMAGE", help="Keep the upper part of this image, sample the rest.")
    ] = None,
    keep: Annotated[
        float | None, codes(metavar="SHARE", help="Share of its height that is kept, 0 to 1; default 0.5.")
    ] = None,
    size: Annotated[
        str | None,
        codes(
            metavar="WIDTHxHEIGHT",
            help="Size in pixels, as trained or larger. Default: that of the map given, else as trained.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        codes(metavar="T", help="Sampling temperature; 0 takes the most likely code; default 1."),
    ] = None,
    top_k: Annotated[
        int | None, codes(metavar="K", help="Sample from the k most likely codes; default 100.")
    ] = None,
    top_p: Annotated[
        float | None, codes(metavar="P", help="Nucleus sampling threshold; default 1, which is off.")
    ] = None,
    out: Annotated[
        str | None,
        output("--out", "-o", metavar="PATH", help="FILE.png for a grid, FOLDER/ for separate files."),
    ] = None,
    overwrite: Annotated[
        bool,
        output("--overwrite", help="Replace the numbered files of a folder that is not empty."),
    ] = False,
    animate: Annotated[
        Path | None,
        output(
            metavar="FILE",
            help="Also write the interpolation, or codes as they are sampled: .webp .gif .mp4.",
        ),
    ] = None,
    fps: Annotated[float, output(min=0.1, max=100, help="Frames per second of the animation.")] = 15.0,
    columns: Annotated[int | None, output(min=1, help="Images per row of the grid.")] = None,
    scale: Annotated[
        int | None,
        output(
            min=1,
            max=64,
            help="Enlarge by this factor. Default: small images in grids are enlarged, files are not.",
        ),
    ] = None,
    as_json: Json = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per forward pass.", rich_help_panel=DEVICE)
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Sample images: a grid, separate files, an interpolation; from latents, classes, maps or part of an image."""
    arguments = dict(locals())  # the fields of SampleOptions
    from gtool.sample.options import SampleOptions

    options = SampleOptions(**arguments)
    options.check()
    from gtool.sample.run import run

    run(options)
