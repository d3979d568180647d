"""What a person sees: results on stdout, everything else on stderr, progress that suits the terminal.

On a terminal a live bar; elsewhere one plain line now and then, so that a log of CI shows that work goes on.
"""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from select import select
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gtool.errors import printable

PLAIN_SECONDS = 10.0  # between two progress lines when stderr is not a terminal
SILENT_SECONDS = 25.0  # after which the last of them is repeated, so that a log shows that work goes on
# GITHUB_ACTIONS makes rich force colours even where NO_COLOR asks for none.
_PLAIN = bool(os.environ.get("NO_COLOR")) or None
_quiet = False
_repeats = False


class Update(Protocol):
    """Moves a progress bar: how much is done of how much, None where nobody knows, and what to say beside it."""

    def __call__(self, done: float, total: float | None, note: str = "") -> None: ...


def _console(stderr: bool) -> Console:
    return Console(
        file=sys.stderr if stderr else sys.stdout,
        no_color=_PLAIN,
        force_terminal=False if _PLAIN else None,
        highlight=False,
        soft_wrap=True,
        emoji=False,
    )


def set_quiet(quiet: bool) -> None:
    """Silence notices and progress; results and errors stay."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Say whether notices and progress are silenced."""
    return _quiet


def result(text: str) -> None:
    """Print one line of result on stdout."""
    _console(stderr=False).print(printable(text), markup=False)


def result_json(record: Mapping[str, Any]) -> None:
    """Print one object as JSON on stdout; names in it are whole, but begin no command of a pipeline (`##[error]`)."""
    text = re.sub(r"##(?=\w*\[)", r"\\u0023#", json.dumps(record, indent=2, allow_nan=False))
    print(text, flush=True)  # noqa: T201 - as it is, without rich


def table(
    columns: list[str],
    rows: list[list[str]],
    title: str | None = None,
    styles: Mapping[str, str] | None = None,
) -> None:
    """Print a table of results on stdout; the first column is text, the others are right-aligned.

    styles: of cells by the word in them, such as `{"FAIL": "bold red"}`.
    """
    # Text and not str: brackets in a name of a folder are no markup.
    heading = Text(printable(title), style="italic") if title is not None else None
    shown = Table(title=heading, title_justify="left", box=None, pad_edge=False)
    for position, name in enumerate(columns):
        shown.add_column(name, justify="left" if position == 0 else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(printable(cell), style=(styles or {}).get(cell, "")) for cell in row))
    screen = _console(stderr=False)
    # Wider than the terminal if need be: a folded path or protocol can be neither copied nor searched for.
    needed = screen.measure(shown, options=screen.options.update(max_width=1000)).maximum
    screen.width = max(screen.width, needed)
    screen.print(shown)


def _say(text: str, style: str | None = None) -> None:
    with suppress(OSError):  # a log that cannot be written is no reason to stop
        _console(stderr=True).print(printable(text), markup=False, style=style)


def set_repeats(repeats: bool) -> None:
    """Silence notices and warnings of a process of several, while it does what another does and says too."""
    global _repeats
    _repeats = repeats


def notice(text: str) -> None:
    """Print one line for the user's information on stderr."""
    if not (_quiet or _repeats):
        _say(text)


def notice_from_handler(text: str) -> None:
    """Print one line on stderr from a signal handler, which may have interrupted a print: no rich, no waiting."""
    with suppress(OSError, ValueError):
        if not _quiet and select([], [2], [], 0)[1]:
            os.write(2, f"{text}\n".encode())


def annotation(text: str) -> None:
    """Print one line for the machine that reads the log, as it is, on stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - as it is, without rich


def warning(text: str) -> None:
    """Print one line that the user should not miss on stderr."""
    if _repeats:
        return
    _say(f"warning: {text}", "yellow")


def error(text: str) -> None:
    """Print one line that says why the command stops on stderr."""
    _say(f"error: {text}", "red")


def duration(seconds: float) -> str:
    """Format a time span: 42s, 3m 05s, 2h 10m, 3d 4h."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m {seconds % 60:02d}s"
    if seconds < 86400:
        return f"{seconds // 3600}h {seconds % 3600 // 60:02d}m"
    return f"{seconds // 86400}d {seconds % 86400 // 3600}h"


@contextmanager
def progress(title: str, unit: str = "images") -> Iterator[Update]:
    """Yield `update(done, total, note)`: a live bar on a terminal, a plain line every ten seconds elsewhere.

    A note that is left out says how many of how many are done, in this unit.
    """
    with _shown(title) as show:
        yield lambda done, total, note="": show(done, total, note or f"{done:,} of {total:,} {unit}")


@contextmanager
def _shown(title: str) -> Iterator[Callable[[float, float | None, str], None]]:
    if _quiet or not sys.stderr.isatty():
        with _plain_lines(title) as update:
            yield update
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, note="")
        yield lambda done, total, note: bar.update(task, completed=done, total=total, note=printable(note))


@contextmanager
def _plain_lines(title: str) -> Iterator[Callable[[float, float | None, str], None]]:
    """Yield what prints a line now and then; a thread repeats the last one where nothing new is said for long."""
    last, line, over = time.monotonic(), title, threading.Event()

    def say() -> None:
        nonlocal last
        last = time.monotonic()
        notice(line)

    def update(done: float, total: float | None, note: str) -> None:
        nonlocal line
        share = "" if total is None else f" {100 * done / total if total else 100:3.0f}%"
        line = f"{title}{share} {note}".rstrip()
        if time.monotonic() - last >= PLAIN_SECONDS:
            say()

    def repeat() -> None:
        while not over.wait(SILENT_SECONDS / 5):
            if time.monotonic() - last >= SILENT_SECONDS:
                say()

    repeater = threading.Thread(target=repeat, daemon=True)
    repeater.start()
    try:
        yield update
    finally:
        over.set()
        repeater.join()
