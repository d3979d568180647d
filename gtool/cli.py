"""The command line: verbs, options, help, and the single handler of errors.

Nothing heavy is imported here: `--help`, `--version`, a bad flag, a bad recipe and a missing file answer without
torch. Each verb is one plain function in `gtool.commands`, imported when it is called.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gtool import __version__, console
from gtool.errors import GToolError, InterruptedRunError

app = typer.Typer(
    name="gtool",
    help="Train, sample, score and export the transformer image generators, and paint with one.",
    invoke_without_command=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        console.result(f"gtool {__version__}")
        raise typer.Exit


# Typer carries its own copy of click in newer versions; these are its exception types in all of them.
_UsageError, _ClickException = typer.BadParameter.__mro__[1:3]


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Results and errors only.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")
    ] = False,
) -> None:
    console.set_quiet(quiet)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any recipe value: `train.batch_size=16`."),
]
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.command(
    epilog="""Examples:

`gtool train transgan` : built-in scenes, no download

`gtool train transgan --dataset cifar10` : hub id uoft-cs/cifar10, or a folder of that name in $GTOOL_DATA

`gtool train transgan --dataset ./my-photos --set data.resolution=64 --minutes 30`

`gtool train transgan --resume auto` : go on with the newest run

`gtool train paint-transformer --finetune ./my-photos` : go on from trained weights with photos of yours

`gtool train transgan --dataset cifar10 --recipe cifar10 --dry-run`"""
)
def train(
    model: Annotated[str, typer.Argument(help="Which model: transgan or paint-transformer.")],
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
    from gtool.commands.plan import Request
    from gtool.commands.train import train as run_train

    flags = {
        "data.dataset": dataset,
        "train.weights": weights,
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


@app.command(
    name="eval",
    epilog="""Examples:

`gtool eval` : the newest run against its own data set, by rfd and swd, which need no download

`gtool eval --fid` : FID of the newest run, 10,000 images, clean-fid's protocol

`gtool eval runs/transgan-cifar10-000 --fid --kid --num 50000` : the published convention for CIFAR-10

`gtool eval samples/ photos/ --kid --json` : two folders

`gtool eval samples/ --reference cifar10 --split test --rfd`""",
)
def evaluate(
    target: Annotated[
        str | None,
        typer.Argument(help="A run, weights, or a folder of images; the newest run when left out."),
    ] = None,
    other: Annotated[str | None, typer.Argument(help="A folder to compare a folder with.")] = None,
    fid: Annotated[
        bool, typer.Option("--fid", help="Frechet Inception distance; needs Inception weights.")
    ] = False,
    kid: Annotated[
        bool, typer.Option("--kid", help="Kernel Inception distance; unbiased, for few images.")
    ] = False,
    rfd: Annotated[
        bool, typer.Option("--rfd", help="Frechet distance of random features; needs no weights.")
    ] = False,
    swd: Annotated[
        bool, typer.Option("--swd", help="Sliced Wasserstein distance of patches; needs none.")
    ] = False,
    num: Annotated[
        int | None,
        typer.Option(
            min=2, help="Images on each side; default 2000, with --fid or --kid 10000, folders: all."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="What is real: a data set's name or a folder; default the run's own data."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the reference; default that of the training.")
    ] = None,
    mode: Annotated[str, typer.Option(help="`clean`, `legacy_tensorflow` or `legacy_pytorch`.")] = "clean",
    weights: Annotated[Path | None, typer.Option(help="File with the Inception weights.")] = None,
    resolution: Annotated[
        int | None, typer.Option(min=16, help="Crop and resize folders to so many pixels.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses the latents and the subsets.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward; changes no result.")] = 32,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="Of the generator: `auto`, `bf16` or `fp32`.")] = "auto",
    as_json: Json = False,
) -> None:
    """Score images: FID and KID by clean-fid's protocol, or rfd and swd, which work offline."""
    from gtool.commands.eval import Request
    from gtool.commands.eval import evaluate as run_evaluate

    flags = {"fid": fid, "kid": kid, "rfd": rfd, "swd": swd}
    request = Request(
        target=target,
        other=other,
        metrics=tuple(name for name, wanted in flags.items() if wanted),
        num=num,
        reference=reference,
        split=split,
        mode=mode,
        weights=weights,
        resolution=resolution,
        seed=seed,
        batch_size=batch_size,
        device=device,
        precision=precision,
        as_json=as_json,
    )
    run_evaluate(request)


@app.command(
    epilog="""Examples:

`gtool sample --num 64` : a grid of the newest run

`gtool sample runs/transgan-cifar10-000 --seeds 0,1,4-6 -o chosen.png`

`gtool sample --seeds 0,3,8 --interpolate 24 --animate walk.webp` : from image to image and back

`gtool sample weights.safetensors --num 5000 -o samples/` : separate PNG files"""
)
def sample(
    target: Annotated[
        str | None, typer.Argument(help="A run, weights, or a hub id; the newest run when left out.")
    ] = None,
    num: Annotated[
        int | None, typer.Option("--num", "-n", min=1, max=10**7, help="How many; default 64.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Which images: numbers and ranges, `0,1,4-6`.")] = None,
    seed: Annotated[int, typer.Option(help="With its number, all that an image depends on.")] = 0,
    interpolate: Annotated[
        int | None, typer.Option(min=1, help="Walk through the images in so many steps from one to the next.")
    ] = None,
    animate: Annotated[Path | None, typer.Option(help="Also write the walk as .webp, .gif or .mp4.")] = None,
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
    """Generate images: a grid, separate files, or a walk from image to image."""
    from gtool.commands.sample import Request
    from gtool.commands.sample import sample as run_sample

    request = Request(
        target=target,
        num=num,
        seeds=seeds,
        seed=seed,
        interpolate=interpolate,
        animate=animate,
        fps=fps,
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


@app.command(
    epilog="""Examples:

`gtool paint photo.jpg` : photo-painted.png beside it

`gtool paint` : the built-in scene, nothing needed

`gtool paint holiday/ -o painted/ --max-strokes 2000` : all photos of a folder and of those in it

`gtool paint photo.jpg -o portrait.webp --brush dry --canvas-color linen --detail 0.7`

`gtool paint photo.jpg --animate making-of.webp --svg photo.svg --strokes photo.json`

`gtool paint clip.mp4 -o clip-painted.mp4` : every frame, with its sound; strokes of still places stay

`gtool paint --from-strokes photo.json --max-side 8192` : the same strokes, larger"""
)
def paint(
    photos: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pictures, clips, folders (their pictures alone), quoted patterns; a built-in scene when left out."
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="FILE.png, .jpg or .webp, for clips .mp4 or .webm, or FOLDER/; default beside the photo.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")] = False,
    brush: Annotated[
        str | None,
        typer.Option(
            help="`flat`, `round`, `dry`, or a folder with a picture of a brush mark; default flat."
        ),
    ] = None,
    detail: Annotated[
        float | None, typer.Option(min=0, max=1, help="0 broad strokes, 1 down to the pixels; default 0.5.")
    ] = None,
    opacity: Annotated[float | None, typer.Option(min=0.05, max=1, help="Of the paint; default 1.")] = None,
    canvas_color: Annotated[
        str | None,
        typer.Option(
            help="Under the paint and what is transparent: `auto` (mean of the photo), `white`, `black`, `grey`, "
            "`linen`, `kraft`, `cream`, `umber`, `slate` or `#rrggbb`; default auto."
        ),
    ] = None,
    max_strokes: Annotated[int | None, typer.Option(min=1, help="Paint no more strokes than these.")] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=32768,
            help="Longer side in pixels: at most for photos (to 8192), exact for strokes; default 2048.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Other strokes for the same photo.")] = 0,
    animate: Annotated[
        str | None, typer.Option(help="Also show the making of it: FILE.webp, .gif or .mp4, or FOLDER/.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=100, help="Frames a second of that, default 24; of a clip, default its own."
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=2, max=10_000, help="How many until it is finished; default 96.")
    ] = None,
    svg: Annotated[
        str | None, typer.Option(help="Also write the strokes as vectors: FILE.svg or FOLDER/.")
    ] = None,
    strokes: Annotated[
        str | None, typer.Option(help="Also write the strokes to render again: FILE.json or FOLDER/.")
    ] = None,
    from_strokes: Annotated[
        Path | None, typer.Option(help="Render such a file at --max-side; takes no photo.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="`predictor`, or without a network `greedy` or `random`; default predictor."),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(help="How the predictor's strokes are chosen: `gain` or `decision`, which is faster."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="A run, a weights file or a hub id; default those of the package.")
    ] = None,
    keep_all: Annotated[
        bool,
        typer.Option("--keep-all", help="Paint also strokes that bring the picture no nearer to the photo."),
    ] = False,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="`auto`, `bf16` or `fp32`.")] = "auto",
    as_json: Json = False,
) -> None:
    """Turn photographs and clips into paintings, stroke by stroke."""
    from gtool.commands.paint import Request
    from gtool.commands.paint import paint as run_paint
    from gtool.commands.paint_outputs import Outputs

    request = Request(
        photos=tuple(photos or ()),
        outputs=Outputs(out=out, svg=svg, strokes=strokes, animate=animate, force=force),
        method=method,
        select=select,
        weights=weights,
        brush=brush,
        opacity=opacity,
        canvas_color=canvas_color,
        detail=detail,
        max_strokes=max_strokes,
        max_side=max_side,
        seed=seed,
        fps=fps,
        frames=frames,
        from_strokes=from_strokes,
        keep_all=keep_all,
        device=device,
        precision=precision,
        as_json=as_json,
    )
    run_paint(request)


@app.command(
    epilog="""Examples:

`gtool export --format onnx` : the newest run; z to images, any batch, checked with onnxruntime

`gtool export runs/transgan-cifar10-000 -o generator.pt2`

`gtool export runs/transgan-cifar10-000 -o mine.safetensors` : one file to share, enough for `gtool sample`

`gtool export runs/paint-transformer-scenes-000 -o predictor.onnx` : patches of photo and canvas to strokes

`gtool export released.pth --from transgan -o transgan.safetensors` : a checkpoint of the original code"""
)
def export(
    target: Annotated[
        str | None, typer.Argument(help="A run, weights, or a hub id; the newest run when left out.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--format", help="`safetensors`, `onnx` or `pt2`; default as -o ends.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="TARGET is an original checkpoint of this model.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a trained network as one file for other programs, and check the file by running it."""
    from gtool.commands.export import Request
    from gtool.commands.export import export as run_export

    run_export(Request(target=target, kind=kind, out=out, source=source, as_json=as_json))


recipes_app = typer.Typer(invoke_without_command=True)
app.add_typer(recipes_app, name="recipes")


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List, show and copy the recipes that come with gtool."""
    if context.invoked_subcommand is None:
        recipes_ls()


@recipes_app.command("ls")
def recipes_ls(as_json: Json = False) -> None:
    """List the recipes: name, resolution, hardware, time."""
    from gtool.commands.recipes import ls

    ls(as_json=as_json)


@recipes_app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="A name from `gtool recipes ls`.")]) -> None:
    """Print a recipe as it is."""
    from gtool.commands.recipes import show

    show(name)


@recipes_app.command("cp")
def recipes_cp(
    name: Annotated[str, typer.Argument(help="A name from `gtool recipes ls`.")],
    destination: Annotated[Path | None, typer.Argument(help="A new file, or a folder.")] = None,
) -> None:
    """Copy a recipe to edit it; never over a file."""
    from gtool.commands.recipes import cp

    cp(name, destination)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed and what this machine can do: for bug reports."""
    from gtool.commands.doctor import doctor as run_doctor

    run_doctor(as_json=as_json)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status; every error becomes one line on stderr."""
    try:
        status = app(arguments, standalone_mode=False, prog_name="gtool") or 0
        if status == 130:
            console.error("interrupted")
        return int(status)
    except Exception as failed:
        if os.environ.get("RANK", "0") != "0":
            # The main process meets the same error and says it; the launcher would end it as soon as this one ends.
            time.sleep(2)
            return getattr(failed, "exit_code", 1)
        return _report(failed, arguments)
    except KeyboardInterrupt:
        console.error("interrupted")
        return 130


def _report(failed: Exception, arguments: list[str]) -> int:
    """Say what stopped the command and return its exit status."""
    text = str(failed)
    if isinstance(failed, GToolError):
        (console.notice if isinstance(failed, InterruptedRunError) else console.error)(text)
        return failed.exit_code
    if isinstance(failed, _UsageError):
        console.error(_usage(failed))
        return 2
    if isinstance(failed, typer.Abort):
        console.error("interrupted")
        return 130
    if isinstance(failed, BrokenPipeError):
        return 1
    if isinstance(failed, OSError) and failed.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EFBIG,
    ):
        console.error(f"{failed.filename or 'output'}: {failed.strerror}")
        return 1
    if (
        isinstance(failed, MemoryError)
        or "out of memory" in text.lower()
        or "can't allocate memory" in text.lower()
    ):
        console.error("out of memory: lower --batch-size, or set train.micro_batch")
        return 1
    return _our_bug(failed, arguments)


def _usage(bad: Any) -> str:
    where = bad.ctx.command_path if bad.ctx else "gtool"
    message = bad.format_message().rstrip(".")
    return f"{message[0].lower()}{message[1:]}; see `{where} --help`"


def _our_bug(unexpected: Exception, arguments: list[str]) -> int:
    """Report a failure that is nobody's fault but ours: one line, and the traceback in a file."""
    import tempfile
    import traceback

    if "--debug" in arguments:
        traceback.print_exc()
        return 3
    text = "".join(traceback.format_exception(unexpected))
    with tempfile.NamedTemporaryFile(
        "w", prefix="gtool-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write(
            f"gtool {__version__}, Python {sys.version.split()[0]}\ngtool {' '.join(arguments)}\n\n{text}"
        )
    first = (str(unexpected).strip() or "no message").splitlines()[0]
    console.error(
        f"unexpected {type(unexpected).__name__}: {first} (traceback in {log.name}; --debug shows it)"
    )
    return 3


def main() -> None:
    """Entry point of the `gtool` command."""
    # So that SIGTERM clears unfinished files away like every other end; training saves its state first.
    signal.signal(signal.SIGTERM, lambda signum, _frame: sys.exit(128 + signum))
    # Threads that wait for each other sleep soon instead of keeping cores from those that they wait for; read when
    # the OpenMP library is loaded, with torch.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    sys.exit(run(sys.argv[1:]))
