"""The command line: verbs, options, help, and the single handler of errors.

Nothing heavy is imported here: `--help`, `--version`, a bad flag, a bad recipe and a missing file answer without
torch. Each verb is one plain function in `gtool.commands`, imported when it is called.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gtool import __version__, console
from gtool.errors import GToolError, Interrupted

app = typer.Typer(
    name="gtool",
    help="Train, sample, score and export the transformer image generators.",
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
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
) -> None:
    console.set_quiet(quiet)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any recipe value: `train.batch_size=16`.")
]
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.command(
    epilog="""Examples:

`gtool train transgan` : built-in scenes, no download

`gtool train transgan --dataset cifar10` : hub id uoft-cs/cifar10, or a folder of that name in $GTOOL_DATA

`gtool train transgan --dataset ./my-photos --set data.resolution=64 --minutes 30`

`gtool train transgan --resume auto` : go on with the newest run

`gtool train transgan --dataset cifar10 --recipe cifar10 --dry-run`"""
)
def train(
    model: Annotated[str, typer.Argument(help="Which model: transgan.")],
    dataset: Annotated[
        str | None, typer.Option(help="A built-in name, a folder, zip or parquet of images, or a hub id.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A name from `gtool recipes ls`, or a TOML file.")] = None,
    settings: Setting = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to make; default `runs/<model>-<dataset>-NNN`.")] = None,
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
    from gtool.commands.train import Request
    from gtool.commands.train import train as run_train

    flags = {
        "data.dataset": dataset,
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
        out=out,
        resume=resume,
        device=device,
        num_processes=num_processes,
        tracker=tracker,
        dry_run=dry_run,
        as_json=as_json,
    )
    run_train(request)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status; every error becomes one line on stderr."""
    try:
        status = app(arguments, standalone_mode=False, prog_name="gtool") or 0
        if status == 130:
            console.error("interrupted")
        return int(status)
    except GToolError as failed:
        (console.notice if isinstance(failed, Interrupted) else console.error)(str(failed))
        return failed.exit_code
    except _UsageError as bad:
        console.error(_usage(bad))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        console.error("interrupted")
        return 130
    except BrokenPipeError:
        return 1
    except MemoryError:
        console.error("out of memory: lower --batch-size, or set train.micro_batch")
        return 1
    except Exception as unexpected:
        return _our_bug(unexpected, arguments)


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
    with tempfile.NamedTemporaryFile("w", prefix="gtool-", suffix=".log", delete=False, encoding="utf-8") as log:
        log.write(f"gtool {__version__}, Python {sys.version.split()[0]}\ngtool {' '.join(arguments)}\n\n{text}")
    first = (str(unexpected).strip() or "no message").splitlines()[0]
    console.error(f"unexpected {type(unexpected).__name__}: {first} (traceback in {log.name}; --debug shows it)")
    return 3


def main() -> None:
    """Entry point of the `gtool` command."""
    sys.exit(run(sys.argv[1:]))
