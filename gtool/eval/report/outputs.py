"""What comes out of `gtool eval`: the table, files by their suffix, what pipelines are told, and the exit status.

`understand_demands` refuses what cannot work before anything is scored; `finish` does everything after the scoring, and
raises at its very end, so that a gate that was missed hides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.errors import CheckpointError, DataError, GateError, RecipeError
from gtool.eval import ci, gates
from gtool.eval.gates import Baseline, Gate
from gtool.eval.report import record as results
from gtool.eval.report import table as score_table
from gtool.io.files import atomic_write

if TYPE_CHECKING:
    from gtool.eval.report.preview import Gallery

Record = Mapping[str, Any]
SUFFIXES = (".json", ".jsonl", ".xml", ".md", ".html")
STYLES = {score_table.PASS: "green", score_table.FAIL: "bold red", score_table.WARN: "yellow"}


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What is asked of a result besides being printed, as typed."""

    maxima: tuple[str, ...] = ()
    minima: tuple[str, ...] = ()
    regressions: tuple[str, ...] = ()
    baseline: Path | None = None
    exit_zero: bool = False
    outputs: tuple[Path, ...] = ()
    gitlab_metrics: Path | None = None


@dataclass(frozen=True)
class Plan:
    """The same, understood."""

    gates: tuple[Gate, ...]
    baseline: Baseline | None
    exit_zero: bool
    outputs: tuple[Path, ...]
    gitlab_metrics: Path | None

    @property
    def wants_pictures(self) -> bool:
        """Whether a page will show images."""
        return any(path.suffix.lower() == ".html" for path in self.outputs)


def understand_demands(demands: Demands, looks: tuple[str, ...]) -> Plan:
    """Check gates, baseline and files for sense.

    Raises:
        RecipeError: words that mean nothing or do not go together.
        DataError: a baseline that cannot be read, or lacks what it is asked for.
        CheckpointError: a file that could not be written in the end.
    """
    found = gates.parse_gates(demands.maxima, demands.minima, demands.regressions, looks)
    if demands.regressions and demands.baseline is None:
        raise RecipeError(f"--max-regress {demands.regressions[0]}: worse than what? Name a --baseline")
    named = [*demands.outputs, *([demands.gitlab_metrics] if demands.gitlab_metrics else [])]
    for path in demands.outputs:
        if path.suffix.lower() not in SUFFIXES:
            raise RecipeError(f"-o {path}: the suffix says what is written: {', '.join(SUFFIXES)}")
    for path in named:
        require_place(path)
    if twice := next((path for path in named if named.count(path) > 1), None):
        raise RecipeError(f"{twice}: named twice")
    if demands.baseline is not None and demands.baseline.absolute() in [path.absolute() for path in named]:
        raise RecipeError(
            f"-o {demands.baseline}: is the baseline, which a worse result would replace; "
            "write another file, and copy it when the gates are met"
        )
    baseline = gates.read_baseline(demands.baseline, found) if demands.baseline else None
    return Plan(found, baseline, demands.exit_zero, demands.outputs, demands.gitlab_metrics)


def require_place(path: Path) -> None:
    """Raise CheckpointError when a file can never be written there, before anything is scored."""
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; name a file in it")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise CheckpointError(f"{path}: {there} is no folder")


@dataclass(frozen=True)
class Scored:
    """A record, the plan of what is done with it, and what only pages need."""

    record: dict[str, Any]
    plan: Plan
    weights: Path | None = None
    gallery: Gallery | None = None


def finish(scored: Scored, *, as_json: bool, tables: Callable[[Record], None]) -> dict[str, Any]:
    """Judge, keep, print and write a record; return it with what became of its gates.

    tables: prints what the looks into a model have found.

    Raises:
        GateError: a gate was not met.
        DataError: a gate's number is missing, or not comparable with the baseline's.
        CheckpointError: a file cannot be written.
    """
    plan = scored.plan
    apart = gates.judge(plan.gates, scored.record, plan.baseline)
    record = scored.record
    before = results.history(scored.weights) if plan.wants_pictures else []
    before = [gates.comparable_part(record, one) for one in before]
    results.keep(record, scored.weights)
    if as_json:
        console.result_json(results.plain(record))
    else:
        tables(record)
        print_scores(results.shown(record))
    unwritten = _write_all(scored, before)
    ci.tell_github(record)
    if unwritten:
        raise CheckpointError("; ".join(unwritten))
    if apart:
        raise DataError("; ".join(apart))
    gates.require_measured(plan.gates, record)
    _require_passed(record, exit_zero=plan.exit_zero)
    return record


def print_scores(record: Record) -> None:
    """Print the metrics and the gates."""
    if record.get("metrics"):
        heads, *rows = score_table.score_rows(record)
        console.table(heads, rows, score_table.title_of(record))
    if record.get("gates"):
        heads, *rows = score_table.gate_rows(record)
        console.table(heads, rows, styles=STYLES)


def _write_all(scored: Scored, before: list[dict[str, Any]]) -> list[str]:
    """Write every file, those after one that cannot be written too; return what went wrong."""
    plan, wrong = scored.plan, []
    writers = [partial(_write, path, scored, before) for path in plan.outputs]
    if plan.gitlab_metrics is not None:
        writers.append(partial(ci.write_gitlab_metrics, plan.gitlab_metrics, scored.record))
    for write in writers:
        try:
            write()
        except CheckpointError as bad:
            wrong.append(str(bad))
    return wrong


def _write(path: Path, scored: Scored, before: list[dict[str, Any]]) -> None:
    record, suffix = scored.record, path.suffix.lower()
    if suffix == ".jsonl":
        try:
            results.append_line(path, record)
        except OSError as bad:
            raise CheckpointError(f"{path}: cannot be written: {bad.strerror}") from None
        return
    with atomic_write(path) as temporary:
        temporary.write_bytes(_content(suffix, scored, before))


def _content(suffix: str, scored: Scored, before: list[dict[str, Any]]) -> bytes:
    if suffix == ".json":
        return (json.dumps(results.plain(scored.record), indent=2, allow_nan=False) + "\n").encode()
    if suffix == ".xml":
        from gtool.eval.report.junit import junit

        return junit(results.shown(scored.record))
    if suffix == ".md":
        return score_table.markdown(results.shown(scored.record)).encode()
    from gtool.eval.report.page import page

    pictures = scored.gallery.pictures() if scored.gallery is not None else None
    return page(scored.record, pictures, before).encode(errors="backslashreplace")


def _require_passed(record: Record, *, exit_zero: bool) -> None:
    for gate in gates.failures(record, "warn"):
        console.warning(score_table.missed(gate))
    failed = gates.failures(record)
    if not failed:
        return
    count = f"{len(failed)} of {len(record['gates'])} gates not met"
    text = f"{count}: {'; '.join(score_table.missed(gate) for gate in failed)}"
    if not exit_zero:
        raise GateError(text)
    console.warning(text)
