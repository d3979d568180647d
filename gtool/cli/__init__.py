"""The command line: verbs, options, help, and the single handler of errors.

Nothing heavy is imported here: `--help`, `--version`, a bad flag, a bad recipe and a missing file answer without
torch: the code of a verb is imported when it is called.
"""

import errno
import io
import os
import re
import signal
import sys
from functools import partial
from pkgutil import resolve_name
from typing import Annotated, Any

import typer

from gtool import __version__, console
from gtool.cli import doctor, recipes
from gtool.cli.completion import VALUES
from gtool.cli.options import Command, Group, command
from gtool.errors import GToolError, InterruptedRunError
from gtool.eval import options as evaluate
from gtool.export import options as export
from gtool.paint import options as paint
from gtool.runtime import peers
from gtool.runtime.processes import is_distributed, repeats_another
from gtool.sample import options as sample
from gtool.train import options as train

app = typer.Typer(
    name="gtool",
    cls=Group,
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


# Typer carries its own copy of click in newer versions; this is its exception type in all of them.
_UsageError = typer.BadParameter.__mro__[1]
_ANYWHERE = {"--quiet", "-q", "--debug"}  # flags of all verbs, which may stand behind the verb as well
_TOGETHER = {"train", "eval"}  # the verbs that all processes of a launcher work on
# What the user can put right: a full or read-only disk, a quota, permissions, a file too large.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)


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


# Verb: its options, what checks them before torch is imported, and what runs with that.
VERBS: dict[str, tuple[Any, str, str, str]] = {
    "train": (train.TrainOptions, train.EXAMPLES, "gtool.train.resolve:resolve", "gtool.train.run:run"),
    "eval": (evaluate.EvalOptions, evaluate.EXAMPLES, "gtool.eval.checks:check", "gtool.eval.run:run"),
    "sample": (sample.SampleOptions, sample.EXAMPLES, "gtool.sample.checks:check", "gtool.sample.run:run"),
    "paint": (paint.PaintOptions, paint.EXAMPLES, "gtool.paint.checks:check", "gtool.paint.run:run"),
    "export": (export.ExportOptions, export.EXAMPLES, "gtool.export.checks:check", "gtool.export.run:run"),
}


def _carry_out(check: str, run: str, options: Any) -> None:
    checked = resolve_name(check)(options)
    resolve_name(run)(checked)


for verb, (options, examples, check, carry_out) in VERBS.items():
    made = command(options, partial(_carry_out, check, carry_out), VALUES[verb])
    app.command(verb, cls=Command, epilog=examples)(made)
app.command(cls=Command)(doctor.doctor)
app.add_typer(recipes.app, name="recipes")


def _general_first(arguments: list[str]) -> list[str]:
    """Move the flags of all verbs before the verb; what comes after `--` is no flag."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ahead, rest = arguments[:end], arguments[end:]
    general = [word for word in ahead if word in _ANYWHERE]
    return general + [word for word in ahead if word not in _ANYWHERE] + rest


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status; every error becomes one line on stderr."""
    try:
        os.getcwd()  # raises where it is gone, which MKL would end the process for
        status = app(_general_first(arguments), standalone_mode=False, prog_name="gtool") or 0
        if status == 130:
            console.error("interrupted")
        return int(status)
    except Exception as failed:
        return _report(peers.explain(failed), arguments)
    except KeyboardInterrupt:
        if peers.says("interrupted", 130, is_shared=True):
            console.error("interrupted")
        return 130
    except SystemExit as ended:  # by SIGTERM, or with the status of a process that was launched
        status = int(ended.code or 0)
        peers.says("ended by a signal", status, is_shared=False)
        return status
    finally:
        peers.leave()


def _report(failed: Exception, arguments: list[str]) -> int:
    """Say what stopped the command and return its exit status; of several processes that meet the same, one says it."""
    if isinstance(failed, InterruptedRunError):  # of all processes, and not by an error
        console.notice(str(failed))
        return failed.exit_code
    text, status = _explain(failed)
    is_shared = not _TOGETHER.isdisjoint(arguments)
    if not peers.says(text or str(failed), status, is_shared=is_shared):
        return status
    if text is None:
        text = _our_bug(failed, arguments)
    if text:
        console.error(peers.here() + text)
    return status


def _explain(failed: Exception) -> tuple[str | None, int]:
    """Return the line that says what stopped the command, None where it is our bug, and the exit status."""
    text = str(failed)
    if isinstance(failed, GToolError):
        return text, failed.exit_code
    if isinstance(failed, _UsageError):
        return _usage(failed), 2
    if isinstance(failed, typer.Abort):
        return "interrupted", 130
    if isinstance(failed, BrokenPipeError):
        return "", 1
    if isinstance(failed, OSError) and failed.errno in _DISK:
        return f"{failed.filename or 'output'}: {failed.strerror}", 1
    if isinstance(failed, FileNotFoundError) and failed.filename is None:  # of os.getcwd
        return "the working folder no longer exists; change to one that does", 1
    if "determine home directory" in text:
        return "no home folder is known; set HOME, or GTOOL_CACHE for what is kept, and write whole paths", 1
    if re.search("failed to map segment|can't start new thread", text):
        return "this process may not use the memory that PyTorch needs: raise its limit, `ulimit -v`", 1
    if isinstance(failed, MemoryError) or re.search("out of memory|can't allocate memory", text, re.I):
        return "out of memory: lower --batch-size or the size of the images", 1
    return None, 3


def _usage(bad: Any) -> str:
    where = bad.ctx.command_path if bad.ctx else "gtool"
    message = bad.format_message().rstrip(".")
    return f"{message[0].lower()}{message[1:]}; see `{where} --help`"


def _our_bug(unexpected: Exception, arguments: list[str]) -> str:
    """Return the line of a failure that is nobody's fault but ours, and write the traceback into a file."""
    import tempfile
    import traceback

    if "--debug" in arguments:
        traceback.print_exception(unexpected)
        return ""
    text = "".join(traceback.format_exception(unexpected))
    with tempfile.NamedTemporaryFile(
        "w", prefix="gtool-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as log:
        version = f"gtool {__version__}, Python {sys.version.split()[0]}"
        log.write(f"{version}\ngtool {' '.join(arguments)}\n\n{text}")
    first = (str(unexpected).strip() or "no message").splitlines()[0]
    return f"unexpected {type(unexpected).__name__}: {first} (traceback in {log.name}; --debug shows it)"


def main() -> None:
    """Entry point of the `gtool` command."""
    # So that SIGTERM clears unfinished files away like every other end; training saves its state first.
    signal.signal(signal.SIGTERM, lambda signum, _frame: sys.exit(128 + signum))
    # Threads that wait for each other sleep soon instead of keeping cores from those that they wait for; read when
    # the OpenMP library is loaded, with torch.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None:
        console.error("stdout is closed: there is nowhere to print results; redirect it to /dev/null")
        sys.exit(1)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal has no letters for are escaped
            stream.reconfigure(errors="backslashreplace")
    console.set_repeats(is_distributed() and repeats_another())
    status = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as bad:
        # What is left would fail again when Python ends, with another status.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not status:
            console.error(f"stdout: cannot be written: {bad.strerror}")
        status = status or 1
    if is_distributed():
        # Of several processes, one that had done its share was seen to abort while torch's threads were torn down
        # (status 134, rarely), and that ends the others. Nothing is left to do: it leaves without that.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
