"""What a `gtool export` command line can say."""

from dataclasses import dataclass
from pathlib import Path

from gtool import flags
from gtool.flags import OUTPUT, argument, examples, option

FORMATS = ("safetensors", "onnx", "pt2")  # as their files end
HUB = "hub"  # a folder of the Hugging Face hub: weights, model card, picture
EXAMPLES = examples(
    "`gtool export --format onnx` : the newest run; z to images, any batch, checked with onnxruntime",
    "`gtool export runs/transgan-cifar10-000 -o generator.pt2`",
    "`gtool export runs/transgan-cifar10-000 -o mine.safetensors` : one file to share, enough for `gtool sample`",
    "`gtool export runs/paint-transformer-scenes-000 -o predictor.onnx` : patches of photo and canvas to strokes",
    "`gtool export runs/vqgan-scenes-000 --format onnx` : two files, images to codes and codes to "
    "images; a prior makes three",
    "`gtool export runs/transgan-cifar10-000 --format hub --repo me/my-model` : to the Hugging Face hub, "
    "with a model card; with `--dry-run` a folder to look at, and nothing is sent",
    "`gtool export released.pth --from transgan -o transgan.safetensors` : a checkpoint of the original code",
    "`gtool export network.pkl --from gansformer` : a pickle of the original code, read without executing it",
)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a trained network as one file for other programs, checked by running it, or send it to the hub."""

    target: str | None = argument("A run, weights, or a hub id; the newest run when left out.")
    file_format: str | None = option(
        OUTPUT,
        "`safetensors`, `onnx`, `pt2` or `hub`. Default: by the suffix of --out, else safetensors.",
        "--format",
    )
    out: Path | None = option(OUTPUT, "File to write, or a folder for it.", "--out", "-o")
    half: bool = option(OUTPUT, "Store numbers of 16 bits: half the size (safetensors, hub).", default=False)
    source: str | None = option(
        "Source", "TARGET is an original checkpoint of this model, or of `taming`.", "--from"
    )
    as_json: bool = flags.as_json()
    repo: str | None = option("Hub", "The repository; made if there is none.", metavar="OWNER/NAME")
    private: bool = option("Hub", "For you alone, where it is made.", default=False)
    dry_run: bool = option("Hub", "Write the folder and send nothing.", default=False)
