"""What a `gtool sample` command line can say."""

from dataclasses import dataclass
from pathlib import Path

from gtool import flags
from gtool.flags import DEVICE, OUTPUT, argument, examples, option

EXAMPLES = examples(
    "`gtool sample --num 64` : a grid of the newest run",
    "`gtool sample runs/transgan-cifar10-000 --seeds 0,1,4-6 -o chosen.png`",
    "`gtool sample --seeds 0,3,8 --interpolate 24 --animate loop.webp` : from image to image and back",
    "`gtool sample transgan` : weights that come with gtool; also gansformer, prior, image-gpt",
    "`gtool sample weights.safetensors --num 5000 -o samples/` : separate PNG files",
    "`gtool sample runs/transgan-cifar10-001 --class frog,ship` : of some classes, of a run that knows them",
    "Latents (gansformer; --project and --latents transgan too):",
    "`gtool sample --psi 0.7 --seeds 0-15` : less variety, fewer failures; `--psi-sweep 0,0.3,0.5,0.7,1` compares",
    "`gtool sample --attention` : what each component attends to, at every layer and head",
    "`gtool sample --mix 3,8 --components 0-4` : two images swap components 0 to 4, together and one by one",
    "`gtool sample --mix 0-3:4-9 --layers 0-3` : columns 4 to 9 take the first layers of rows 0 to 3",
    "`gtool sample --interpolate 12 --component 5` : one component changes, all else stays",
    "`gtool sample --noise-variation` : what the noise inputs change",
    "`gtool sample transgan --project photo.png -o latent.safetensors` : a photo's latent",
    "`gtool sample transgan --latents a.safetensors,b.safetensors --interpolate 30 --animate morph.webp`",
    "Codes (prior):",
    "`gtool sample --num 16 --temperature 1 --top-k 100 --top-p 0.95` : conditioned as its own data set",
    "`gtool sample --segmentation map.png --num 8` : several images of one map; `--class 3`, `--depth depth.png`",
    "`gtool sample --complete half.png --keep 0.5` : the upper half is kept, the rest is sampled",
    "`gtool sample prior --complete photo.png --mask hole.png` : what is white in the mask is sampled",
    "`gtool sample prior --legend` : the labels of such maps, and their colours; of other models the classes",
    "`gtool sample prior --segmentation map.png --guidance 2` : follows the map more closely",
    "`gtool sample prior --steps 16` : several codes at once, by a prior of any order as --mask",
    "`gtool sample --segmentation wide.png --size 512x256` : larger than trained",
    "`gtool sample --num 9 --animate codes.webp` : code by code",
)

WHAT = "What to sample"
LATENTS = "Latents (of models that sample from latents)"
CODES = "Conditions (of priors, which sample codes)"


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Sample images: a grid, separate files, an interpolation; from latents, classes, maps or part of an image."""

    target: str | None = argument(
        "A run, a weights file, a hub id, or the name of weights that come with gtool (`transgan`, `gansformer`, "
        "`prior`, `image-gpt`); default: the newest run."
    )
    num: int | None = option(
        WHAT,
        "Number of images. Default: 64, or 8 of each class; 16 for a prior, 1 with --size; 4 or 8 for --interpolate, "
        "--attention and the like.",
        "--num",
        "-n",
        min=1,
        max=10**7,
    )
    seeds: str | None = option(WHAT, "Numbers of the images, in place of --num.", metavar="0,1,4-6")
    seed: int = option(WHAT, "Random seed; an image depends on it and on its number.", default=0)
    of_class: str | None = option(
        WHAT,
        "Class of the images, a name or a number; of a conditional GAN also several, which they take in turn. Default: "
        "all of them.",
        "--class",
        metavar="CLASS",
    )
    legend: bool = option(
        WHAT, "List the classes of --class, or the labels of --segmentation and their colours.", default=False
    )
    interpolate: int | None = option(
        WHAT, "Interpolate from each image to the next in so many steps.", metavar="STEPS", min=1
    )
    psi: float = option(
        LATENTS, "Truncation: pull w to its mean, each component to its own; 1 is off.", default=1.0
    )
    psi_sweep: str | None = option(
        LATENTS, "A row for each image, a column for each psi.", metavar="PSI,PSI,..."
    )
    attention: bool = option(
        LATENTS, "Show every component's attention at each layer and head.", default=False
    )
    mix: str | None = option(
        LATENTS,
        "Mix styles: A,B swaps two images; `SOURCES:TARGETS` gives a table, sources as rows.",
        metavar="A,B",
    )
    components: str | None = option(
        LATENTS,
        "Components that --mix swaps or --interpolate changes.",
        "--components",
        "--component",
        metavar="0-4,global",
    )
    layers: str | None = option(
        LATENTS, "Layers where --mix swaps, coarse ones first; default all.", metavar="0-3"
    )
    space: str | None = option(LATENTS, "Latent space of --interpolate: `z` or `w`; default z.")
    noise_variation: bool = option(LATENTS, "Show how the images vary with the noise inputs.", default=False)
    project: Path | None = option(
        LATENTS,
        "Find the latent of this photo; -o names its file, and pictures and a loss curve lie beside it.",
        metavar="PHOTO",
    )
    latents: str | None = option(
        LATENTS,
        "Images of latents that --project found, numbered from 0, in place of those of a seed.",
        metavar="FILE,FILE,...",
    )
    segmentation: Path | None = option(
        CODES, "Label map: grey or palette values, or the data set's colours.", metavar="MAP.png"
    )
    depth: Path | None = option(CODES, "Depth map.", metavar="MAP.png")
    complete: Path | None = option(CODES, "Keep a part of this image, sample the rest.", metavar="IMAGE")
    mask: Path | None = option(
        CODES,
        "What of it is sampled: white in a black and white picture of its size. Needs a prior of any order.",
        metavar="MASK.png",
    )
    keep: float | None = option(
        CODES, "Without --mask: share of its height that is kept, 0 to 1; default 0.5.", metavar="SHARE"
    )
    guidance: float | None = option(
        CODES,
        "Follow class or map more closely, as 2 or 3; default 1, which is off. Takes twice the time.",
        metavar="SCALE",
    )
    steps: int | None = option(
        CODES,
        "Sample all codes in so many steps, several at once. Default: one by one. Needs a prior of any order.",
    )
    size: str | None = option(
        CODES,
        "Size in pixels, as trained or larger. Default: that of the map given, else as trained.",
        metavar="WIDTHxHEIGHT",
    )
    temperature: float | None = option(
        CODES, "Sampling temperature; 0 takes the most likely code; default 1.", metavar="T"
    )
    top_k: int | None = option(CODES, "Sample from the k most likely codes; default 100.", metavar="K")
    top_p: float | None = option(CODES, "Nucleus sampling threshold; default 1, which is off.", metavar="P")
    out: str | None = option(
        OUTPUT,
        "FILE.png for a grid, FOLDER/ for separate files, FILE.safetensors for --project.",
        "--out",
        "-o",
        metavar="PATH",
    )
    overwrite: bool = option(
        OUTPUT, "Replace the numbered files of a folder that is not empty.", default=False
    )
    animate: Path | None = option(
        OUTPUT,
        "Also write the interpolation, the search, or codes as they are sampled: .webp .gif .mp4.",
        metavar="FILE",
    )
    fps: float | None = option(OUTPUT, "Frames per second of --animate; default 15.", min=0.1, max=100)
    columns: int | None = option(OUTPUT, "Images per row of the grid.", min=1)
    scale: int | None = option(
        OUTPUT,
        "Enlarge by this factor. Default: small images in grids are enlarged, files are not.",
        min=1,
        max=64,
    )
    as_json: bool = flags.as_json()
    batch_size: int | None = option(
        DEVICE,
        "Images per forward pass. Another number rounds otherwise: pixels may change a little, and a prior may choose "
        "another code now and then.",
        min=1,
    )
    device: str = flags.device()
    precision: str = flags.precision()
