"""What a `gtool train` command line can say."""

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from gtool import flags
from gtool.flags import DEVICE, OUTPUT, argument, examples, option
from gtool.models.registry import MODELS

EXAMPLES = examples(
    "`gtool train transgan` : built-in scenes, no download",
    "`gtool train transgan --dataset cifar10` : hub id uoft-cs/cifar10, or a folder of that name in $GTOOL_DATA",
    "`gtool train transgan --dataset ./my-photos --set data.resolution=64 --minutes 30`",
    "`gtool train gansformer --set model.attention=simplex` : or duplex, centroid, none (StyleGAN2)",
    "`gtool train transgan --resume auto` : resume the newest run",
    "`gtool train transgan --weights transgan --dataset ./my-photos --minutes 5` : go on from weights "
    "that come with gtool",
    "`gtool train transgan --dataset cifar10 --set data.condition=class` : class-conditional; gansformer too",
    "`gtool train paint-transformer --finetune ./my-photos` : fine-tune the shipped weights on your photos",
    "`gtool train transgan --dataset cifar10 --recipe cifar10 --dry-run`",
)

DATA, RUN = "Data", "Run"
TRACKERS = ("tensorboard", "trackio", "wandb")
# Values of a recipe that have a flag of the same name.
RECIPE_KEYS = (
    *("data.dataset", "train.weights", "prior.tokenizer", "train.kimg", "train.minutes"),
    *("train.batch_size", "train.seed", "train.precision"),
)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a model; ends with weights, a grid, an animation of the run, and curves."""

    model: str = argument(f"Which model: {', '.join(MODELS)}.", default=MISSING)
    dataset: str | None = option(DATA, "A built-in name, a folder, zip or parquet of images, or a hub id.")
    finetune: str | None = option(
        DATA, "Fine-tune trained weights on this data set (paint-transformer).", metavar="DATASET"
    )
    weights: str | None = option(
        DATA,
        "Initial weights, of transgan, gansformer or paint-transformer: a run, file, hub id, or the name of those that "
        "come with gtool; default with --finetune: those shipped.",
    )
    tokenizer: str | None = option(
        DATA, "Tokenizer of a prior: a run, file or hub id; default: the newest trained on this data."
    )
    recipe: str | None = option(RUN, "A name from `gtool recipes ls`, or a TOML file.")
    settings: tuple[str, ...] = option(
        RUN, "Set any recipe value: `train.batch_size=16`.", "--set", default=(), metavar="KEY=VALUE"
    )
    resume: str | None = option(RUN, "`auto` for the newest run, a run folder, or a state in one.")
    kimg: float | None = option(RUN, "Stop after so many thousand images.")
    minutes: float | None = option(RUN, "Stop after so many minutes of training.")
    batch_size: int | None = option(RUN, "Images per step, over all processes.")
    seed: int | None = option(RUN, "Random seed.")
    device: str = flags.device()
    precision: str | None = option(DEVICE, "`auto`, `bf16` or `fp32`.")
    num_processes: int | None = option(DEVICE, "Number of processes to train on.", min=1)
    timeout: float = flags.timeout()
    out: Path | None = option(
        OUTPUT, "Run folder to make; default `runs/<model>-<dataset>-NNN`.", "--out", "-o"
    )
    tracker: str | None = option(
        OUTPUT, "Also log to `tensorboard` (in the run folder), `trackio` or `wandb`."
    )
    dry_run: bool = option(OUTPUT, "Print what would run, and stop.", default=False)
    as_json: bool = flags.as_json()

    @property
    def flags(self) -> dict[str, Any]:
        """The recipe keys that have a flag of their own, where it was given."""
        values = {key: getattr(self, key.partition(".")[2]) for key in RECIPE_KEYS}
        return {key: value for key, value in values.items() if value is not None}
