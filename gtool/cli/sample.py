"""`gtool sample`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gtool.cli.options import DEVICE, OUTPUT, Device, Json, Precision, option

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

WHAT = "What to sample"
LATENTS = "Latents (of models that sample from latents)"
CODES = "Conditions (of priors, which sample codes)"
TARGET = "A run, a weights file or a hub id; default: the newest run."
NUM = "Number of images. Default: 64; 16 for a prior; 4 or 8 for --interpolate, --attention and the like."
INTERPOLATE = "Interpolate from each image to the next in so many steps."
PSI = "Truncation: pull w to its mean, each component to its own; 1 is off."
ATTENTION = "Show every component's attention at each layer and head."
MIX = "Mix styles: A,B swaps two images; `SOURCES:TARGETS` gives a table, sources as rows."
COMPONENTS = "Components that --mix swaps or --interpolate changes."
LAYERS = "Layers where --mix swaps, coarse ones first; default all."
SEGMENTATION = "Label map: grey or palette values, or the data set's colours."
SIZE = "Size in pixels, as trained or larger. Default: that of the map given, else as trained."
TEMPERATURE = "Sampling temperature; 0 takes the most likely code; default 1."
ANIMATE = "Also write the interpolation, or codes as they are sampled: .webp .gif .mp4."
SCALE = "Enlarge by this factor. Default: small images in grids are enlarged, files are not."
OVERWRITE = "Replace the numbered files of a folder that is not empty."
BATCH_SIZE = (
    "Images per forward pass. Another number rounds otherwise: pixels may change a little, and a prior may choose "
    "another code now and then."
)

Text = str | None
Number = float | None
Count = int | None
File = Path | None


def sample(
    target: Annotated[Text, typer.Argument(help=TARGET)] = None,
    num: Annotated[Count, option(WHAT, NUM, "--num", "-n", min=1, max=10**7)] = None,
    seeds: Annotated[
        Text, option(WHAT, "Numbers of the images, in place of --num.", metavar="0,1,4-6")
    ] = None,
    seed: Annotated[int, option(WHAT, "Random seed; an image depends on it and on its number.")] = 0,
    interpolate: Annotated[Count, option(WHAT, INTERPOLATE, metavar="STEPS", min=1)] = None,
    psi: Annotated[float, option(LATENTS, PSI)] = 1.0,
    psi_sweep: Annotated[
        Text, option(LATENTS, "A row for each image, a column for each psi.", metavar="PSI,PSI,...")
    ] = None,
    attention: Annotated[bool, option(LATENTS, ATTENTION, "--attention")] = False,
    mix: Annotated[Text, option(LATENTS, MIX, metavar="A,B")] = None,
    components: Annotated[
        Text, option(LATENTS, COMPONENTS, "--components", "--component", metavar="0-4,global")
    ] = None,
    layers: Annotated[Text, option(LATENTS, LAYERS, metavar="0-3")] = None,
    space: Annotated[Text, option(LATENTS, "Latent space of --interpolate: `z` or `w`; default z.")] = None,
    noise_variation: Annotated[
        bool, option(LATENTS, "Show how the images vary with the noise inputs.", "--noise-variation")
    ] = False,
    of_class: Annotated[Text, option(CODES, "Class: a number or a name.", "--class", metavar="CLASS")] = None,
    segmentation: Annotated[File, option(CODES, SEGMENTATION, metavar="MAP.png")] = None,
    depth: Annotated[File, option(CODES, "Depth map.", metavar="MAP.png")] = None,
    complete: Annotated[
        File, option(CODES, "Keep the upper part of this image, sample the rest.", metavar="IMAGE")
    ] = None,
    keep: Annotated[
        Number, option(CODES, "Share of its height that is kept, 0 to 1; default 0.5.", metavar="SHARE")
    ] = None,
    size: Annotated[Text, option(CODES, SIZE, metavar="WIDTHxHEIGHT")] = None,
    temperature: Annotated[Number, option(CODES, TEMPERATURE, metavar="T")] = None,
    top_k: Annotated[
        Count, option(CODES, "Sample from the k most likely codes; default 100.", metavar="K")
    ] = None,
    top_p: Annotated[
        Number, option(CODES, "Nucleus sampling threshold; default 1, which is off.", metavar="P")
    ] = None,
    out: Annotated[
        Text,
        option(OUTPUT, "FILE.png for a grid, FOLDER/ for separate files.", "--out", "-o", metavar="PATH"),
    ] = None,
    overwrite: Annotated[bool, option(OUTPUT, OVERWRITE, "--overwrite")] = False,
    animate: Annotated[File, option(OUTPUT, ANIMATE, metavar="FILE")] = None,
    fps: Annotated[
        Number, option(OUTPUT, "Frames per second of --animate; default 15.", min=0.1, max=100)
    ] = None,
    columns: Annotated[Count, option(OUTPUT, "Images per row of the grid.", min=1)] = None,
    scale: Annotated[Count, option(OUTPUT, SCALE, min=1, max=64)] = None,
    as_json: Json = False,
    batch_size: Annotated[Count, option(DEVICE, BATCH_SIZE, min=1)] = None,
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
