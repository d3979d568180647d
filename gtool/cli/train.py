"""`gtool train`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gtool.cli.options import Device, Json, Setting
from gtool.models.registry import MODELS

DATA, RUN, DEVICE, OUTPUT = "Data", "Run", "Device", "Output"  # panels of the help page
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
        str | None,
        typer.Option(
            help="A built-in name, a folder, zip or parquet of images, or a hub id.", rich_help_panel=DATA
        ),
    ] = None,
    finetune: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="Fine-tune trained weights on these images (paint-transformer).",
            rich_help_panel=DATA,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Initial weights: a run, a file or a hub id; with --finetune the shipped ones by default.",
            rich_help_panel=DATA,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer whose codes a prior learns: a run, a file or a hub id; by default the newest "
            "of the data set.",
            rich_help_panel=DATA,
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A name from `gtool recipes ls`, or a TOML file.", rich_help_panel=RUN)
    ] = None,
    settings: Setting = None,
    resume: Annotated[
        str | None, typer.Option(help="`auto` for the newest run, or a run folder.", rich_help_panel=RUN)
    ] = None,
    kimg: Annotated[
        float | None, typer.Option(help="Stop after so many thousand images.", rich_help_panel=RUN)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so many minutes of training.", rich_help_panel=RUN)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step, over all processes.", rich_help_panel=RUN)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.", rich_help_panel=RUN)] = None,
    device: Device = "auto",
    precision: Annotated[
        str | None, typer.Option(help="`auto`, `bf16` or `fp32`.", rich_help_panel=DEVICE)
    ] = None,
    num_processes: Annotated[
        int | None, typer.Option(min=1, help="Number of processes to train on.", rich_help_panel=DEVICE)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder to make; default `runs/<model>-<dataset>-NNN`.", rich_help_panel=OUTPUT
        ),
    ] = None,
    tracker: Annotated[
        str | None, typer.Option(help="Also log to `tensorboard`.", rich_help_panel=OUTPUT)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run, and stop.", rich_help_panel=OUTPUT)
    ] = False,
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
        tracker=tracker,
        dry_run=dry_run,
        as_json=as_json,
    )
    resolved = resolve(options)  # before torch is imported
    from gtool.train.run import run

    run(options, *resolved)
