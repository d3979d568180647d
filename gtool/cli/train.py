"""`gtool train`: its options."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gtool.cli.options import DEVICE, OUTPUT, Device, Json, Timeout
from gtool.models.registry import MODELS

# Options by the panel of the help page.
data, length, hardware, output = (
    partial(typer.Option, rich_help_panel=panel) for panel in ("Data", "Run", DEVICE, OUTPUT)
)
EXAMPLES = """Examples:

`gtool train transgan` : built-in scenes, no download

`gtool train transgan --dataset cifar10` : hub id uoft-cs/cifar10, or a folder of that name in $GTOOL_DATA

`gtool train transgan --dataset ./my-photos --set data.resolution=64 --minutes 30`

`gtool train gansformer --set model.attention=simplex` : or duplex, centroid, none (StyleGAN2)

`gtool train transgan --resume auto` : resume the newest run

`gtool train paint-transformer --finetune ./my-photos` : fine-tune the shipped weights on your photos

`gtool train transgan --dataset cifar10 --recipe cifar10 --dry-run`"""


def train(
    model: Annotated[str, typer.Argument(help=f"Which model: {', '.join(MODELS)}.")],
    dataset: Annotated[
        str | None, data(help="A built-in name, a folder, zip or parquet of images, or a hub id.")
    ] = None,
    finetune: Annotated[
        str | None,
        data(metavar="DATASET", help="Fine-tune trained weights on this data set (paint-transformer)."),
    ] = None,
    weights: Annotated[
        str | None,
        data(help="Initial weights: a run, file or hub id; default with --finetune: those shipped."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        data(help="Tokenizer of a prior: a run, file or hub id; default: the newest trained on this data."),
    ] = None,
    recipe: Annotated[str | None, length(help="A name from `gtool recipes ls`, or a TOML file.")] = None,
    settings: Annotated[
        list[str] | None,
        length("--set", metavar="KEY=VALUE", help="Set any recipe value: `train.batch_size=16`."),
    ] = None,
    resume: Annotated[
        str | None, length(help="`auto` for the newest run, a run folder, or a state in one.")
    ] = None,
    kimg: Annotated[float | None, length(help="Stop after so many thousand images.")] = None,
    minutes: Annotated[float | None, length(help="Stop after so many minutes of training.")] = None,
    batch_size: Annotated[int | None, length(help="Images per step, over all processes.")] = None,
    seed: Annotated[int | None, length(help="Random seed.")] = None,
    device: Device = "auto",
    precision: Annotated[str | None, hardware(help="`auto`, `bf16` or `fp32`.")] = None,
    num_processes: Annotated[int | None, hardware(min=1, help="Number of processes to train on.")] = None,
    timeout: Timeout = 180.0,
    out: Annotated[
        Path | None, output(help="Run folder to make; default `runs/<model>-<dataset>-NNN`.")
    ] = None,
    tracker: Annotated[str | None, output(help="Also log to `tensorboard`.")] = None,
    dry_run: Annotated[bool, output("--dry-run", help="Print what would run, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model; ends with weights, a grid, an animation of the run, and curves."""
    from gtool.train.options import TrainOptions, resolve

    flags = {
        "data.dataset": dataset,
        "train.weights": weights,
        "prior.tokenizer": tokenizer,
        "train.kimg": kimg,
        "train.minutes": minutes,
        "train.batch_size": batch_size,
        "train.seed": seed,
        "train.precision": precision,
    }
    options = TrainOptions(
        model=model,
        recipe=recipe,
        settings=tuple(settings or ()),
        flags={key: value for key, value in flags.items() if value is not None},
        finetune=finetune,
        out=out,
        resume=resume,
        device=device,
        num_processes=num_processes,
        timeout=timeout,
        tracker=tracker,
        dry_run=dry_run,
        as_json=as_json,
    )
    resolved = resolve(options)  # before torch is imported
    from gtool.train.run import run

    run(options, *resolved)
