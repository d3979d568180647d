"""`gtool eval`: its options. The flags of metrics follow from gtool.metrics.registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from gtool.cli.options import DEVICE, OUTPUT, Device, Json, Precision, Timeout
from gtool.eval.gates import DIAGNOSTICS, parse_gates
from gtool.metrics.registry import METRICS

EXAMPLES = """Examples:

`gtool eval` : the newest run against its own data set, by rfd and swd, which need no download

`gtool eval --fid` : FID of the newest run, 10,000 images, clean-fid's protocol

`gtool eval runs/transgan-cifar10-000 --fid --kid --num 50000` : the published convention for CIFAR-10

`gtool eval samples/ photos/ --kid --json` : two folders

`gtool eval --attention` : a table of scores beside four baselines, and a sheet of images

`gtool eval runs/vqgan-scenes-000 --reconstruction` : a tokenizer, or that of a prior, on held-out images

`gtool eval runs/prior-scenes-000 --map-agreement` : with two ceilings (originals, reconstructions) and a baseline

`gtool eval samples/ --reference cifar10 --split test --rfd`

`gtool eval --reference cifar10 --resolution 32 --export-reference cifar10.npz` : statistics alone, for later scores

`gtool eval painted/ originals/ --paired --lpips` : PSNR, SSIM, L1 and LPIPS, picture by picture

`gtool eval RUN --max fid=20 --max kid=0.01:warn -o result.json -o junit.xml -o report.html` : gates for pipelines

`gtool eval RUN --baseline main.json --max-regress fid=5%` : no worse than an earlier result"""
IMAGES, METRIC, REFERENCE, GATES = "Images", "Metrics", "Reference", "Gates"


def option(text: str, panel: str, *names: str, **more: Any) -> Any:
    """Return an option with its help and the panel of the help page that it stands in."""
    return typer.Option(*names, help=text, rich_help_panel=panel or IMAGES, **more)


def with_metric_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for each metric and diagnostic, behind its arguments; they arrive by keyword."""
    signature = inspect.signature(command, eval_str=True)
    target, other, *options = (
        one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD
    )
    helps = {name: metric.help for name, metric in METRICS.items()} | DIAGNOSTICS
    flags = [
        inspect.Parameter(
            f"ask_{name}",  # `is` alone is a word of Python
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, option(f"{text}.", METRIC, f"--{name.replace('_', '-')}")],
        )
        for name, text in helps.items()
    ]
    command.__signature__ = signature.replace(parameters=[target, other, *flags, *options])  # type: ignore[attr-defined]
    return command


@with_metric_flags
def evaluate(
    target: Annotated[
        str | None,
        typer.Argument(help="A run, weights, or a folder of images; the newest run when left out."),
    ] = None,
    other: Annotated[
        str | None, typer.Argument(help="What a folder is compared with, in place of --reference.")
    ] = None,
    *,
    num: Annotated[
        int | None,
        option(
            "Number of images of each set. Default: all of a folder; 10000 generated ones, 2000 for rfd and swd alone, "
            "up to 1000 for --attention, 256 for --map-agreement.",
            IMAGES,
            min=2,
        ),
    ] = None,
    seed: Annotated[int, option("Random seed of the images and of the subsets.", IMAGES)] = 0,
    resolution: Annotated[
        int | None, option("Crop and resize the images of folders to this many pixels.", IMAGES, min=16)
    ] = None,
    fit: Annotated[
        bool, option("Squeeze images that are not square instead of cropping.", IMAGES, "--fit")
    ] = False,
    strict: Annotated[
        bool, option("Refuse folders that contain files other than images.", IMAGES, "--strict")
    ] = False,
    skip_bad: Annotated[
        int, option("Leave out up to this many images that cannot be read.", IMAGES, min=0)
    ] = 0,
    reference: Annotated[
        str | None,
        option(
            "Real images: a data set's name, a folder, or statistics (.npz, or `clean-fid:cifar10-32-train`). "
            "Default: the run's own data.",
            REFERENCE,
        ),
    ] = None,
    split: Annotated[
        str | None, option("Split of the reference data set. Default: the one trained on.", REFERENCE)
    ] = None,
    mode: Annotated[
        str, option("Resizing for Inception: `clean`, `legacy_tensorflow` or `legacy_pytorch`.", REFERENCE)
    ] = "clean",
    weights: Annotated[Path | None, option("File with the Inception weights.", REFERENCE)] = None,
    clip_weights: Annotated[Path | None, option("File with the CLIP ViT-B/32 weights.", REFERENCE)] = None,
    export_reference: Annotated[
        Path | None,
        option(
            "Also write mean and covariance of the reference's Inception features to this .npz; with "
            "neither target nor metric, nothing is scored.",
            REFERENCE,
        ),
    ] = None,
    maximum: Annotated[
        list[str] | None,
        option(
            "Exit with status 4 where a score is higher: `fid=20`; only warn: `fid=20:warn`; repeatable.",
            GATES,
            "--max",
            metavar="METRIC=X",
        ),
    ] = None,
    minimum: Annotated[
        list[str] | None,
        option("The same where it is lower: `recall=0.3`; repeatable.", GATES, "--min", metavar="METRIC=X"),
    ] = None,
    baseline: Annotated[
        Path | None, option("An earlier result to compare with: .json, or the last line of .jsonl.", GATES)
    ] = None,
    max_regress: Annotated[
        list[str] | None,
        option(
            "How much worse than the baseline a score may be: `fid=5%` or `fid=0.3`; repeatable.",
            GATES,
            metavar="METRIC=X",
        ),
    ] = None,
    exit_zero: Annotated[
        bool, option("Exit with status 0 even where gates fail.", GATES, "--exit-zero")
    ] = False,
    output: Annotated[
        list[Path] | None,
        option(
            "Also write the result, by suffix: `.json`, `.jsonl` (adds a line), `.xml` (JUnit), `.md` or `.html`; "
            "repeatable.",
            OUTPUT,
            "--output",
            "-o",
            metavar="FILE",
        ),
    ] = None,
    gitlab_metrics: Annotated[
        Path | None, option("Write `name value` lines, for GitLab's metrics report.", OUTPUT)
    ] = None,
    as_json: Json = False,
    device: Device = "auto",
    precision: Precision = "auto",
    preview: Annotated[
        bool,
        option(
            "Compute features in bf16: faster, and not comparable with other scores.", DEVICE, "--preview"
        ),
    ] = False,
    batch_size: Annotated[
        int, option("Images per forward; another number changes no more than rounding.", DEVICE, min=1)
    ] = 32,
    num_processes: Annotated[
        int | None, option("Number of processes on this machine.", DEVICE, min=1)
    ] = None,
    timeout: Timeout = 180.0,
    **asked: Any,
) -> None:
    """Score images: FID and KID by clean-fid's protocol, or rfd and swd, which work offline.

    A gate computes its metric without the metric's flag. The exit status is 4 when a gate is not met.
    """
    given = dict(locals())  # most are fields of EvalOptions
    from gtool.eval.options import EvalOptions, complete

    options = EvalOptions(
        metrics=tuple(name for name in METRICS if asked[f"ask_{name}"]),
        diagnostics=tuple(name for name in DIAGNOSTICS if asked[f"ask_{name}"]),
        gates=parse_gates(maximum or [], minimum or [], max_regress or []),
        outputs=tuple(output or ()),
        **{field.name: given[field.name] for field in fields(EvalOptions) if field.name in given},
    )
    options = complete(options)

    from gtool.eval.run import run

    run(options)
