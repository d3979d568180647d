"""`gtool train`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gtool.cli.options import Device, Json, Setting
from gtool.models.registry import MODELS

EXAMPLES = """Examples:

`gtool train transgan` : built-in scenes, no download

`gtool train transgan --dataset cifar10` : hub id uoft-cs/cifar10, or a folder of that name in $GTOOL_DATA

`gtool train transgan --dataset ./my-photos --set data.resolution=64 --minutes 30`

`gtool train gansformer --set model.attention=simplex` : or duplex, centroid, none (StyleGAN2)

`gtool train transgan --resume auto` : go on with the newest run

`gtool train paint-transformer --finetune ./my-photos` : go on from trained weights with photos of yours

`gtool train transgan --dataset cifar10 --recipe cifar10 --dry-run`"""


def train(
    model: Annotated[str, typer.Argument(help=f"Which model: {', '.join(MODELS)}.")],
    dataset: Annotated[
        str | None, typer.Option(help="A built-in name, a folder, zip or parquet of images, or a hub id.")
    ] = None,
    finetune: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Go on from trained weights with these (paint-transformer)."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Begin with these: a run, a file or a hub id; with --finetune default those of the package."
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Whose codes a prior learns: a run, a file or a hub id; default the newest of the data set."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A name from `gtool recipes ls`, or a TOML file.")
    ] = None,
    settings: Setting = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to make; default `runs/<model>-<dataset>-NNN`.")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="`auto` for the newest run, or a run folder.")] = None,
    kimg: Annotated[float | None, typer.Option(help="Stop after so many thousand real images.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes of training.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step, over all processes.")] = None,
    seed: Annotated[int | None, typer.Option(help="One number that all randomness follows from.")] = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="`auto`, `bf16` or `fp32`.")] = None,
    num_processes: Annotated[int | None, typer.Option(min=1, help="Train on so many processes.")] = None,
    tracker: Annotated[str | None, typer.Option(help="Also log to `tensorboard`.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model; ends with weights, a grid, an animation of the run, and curves."""
    from gtool.train.options import Request
    from gtool.train.run import train as run_train

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
    request = Request(
        model=model,
        recipe=recipe,
        settings=settings or [],
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
    run_train(request)
