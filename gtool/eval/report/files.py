"""Where a result goes besides the terminal: files by their suffix, GitHub's summary and annotations, GitLab's metrics.

The names of GitHub's variables and its escapes are those of its documentation on workflow commands and variables.
"""

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gtool import console
from gtool.errors import CheckpointError
from gtool.eval.report.junit import junit
from gtool.eval.report.record import append_line, plain, shown
from gtool.eval.report.table import markdown, missed
from gtool.eval.verdicts import failures, find_number
from gtool.io.files import atomic_write

Record = Mapping[str, Any]
SUFFIXES = (".json", ".jsonl", ".xml", ".md", ".html")


def write_all(
    record: Record, paths: Sequence[Path], gitlab_metrics: Path | None, draw_page: Callable[[], str]
) -> list[str]:
    """Write every file, those after one that cannot be written too; return what went wrong.

    draw_page: returns the HTML of the record; called where a page is wanted.
    """
    text_of: dict[str, Callable[[], str]] = {
        ".json": lambda: json.dumps(plain(record), indent=2, allow_nan=False) + "\n",
        ".xml": lambda: junit(shown(record)).decode(),
        ".md": lambda: markdown(shown(record)),
        ".html": draw_page,
    }
    wrong = []
    for path in (*paths, *([gitlab_metrics] if gitlab_metrics else [])):
        try:
            if path == gitlab_metrics:
                _write(path, "".join(f"{name} {value}\n" for name, value in _numbers(record).items()))
            elif path.suffix.lower() == ".jsonl":
                append_line(path, record)
            else:
                _write(path, text_of[path.suffix.lower()]())
        except CheckpointError as bad:
            wrong.append(str(bad))
        except OSError as bad:
            wrong.append(f"{path}: cannot be written: {bad.strerror}")
    return wrong


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode(errors="backslashreplace"))


def write_to_github(record: Record) -> None:
    """Append to the step's summary and outputs where there are such files, and annotate within Actions."""
    record = shown(record)
    outputs = _numbers(record)
    if record.get("gates"):
        outputs["passed"] = str(not failures(record)).lower()
    texts = {
        "GITHUB_STEP_SUMMARY": markdown(record) + "\n",
        "GITHUB_OUTPUT": "".join(f"{name}={value}\n" for name, value in outputs.items()),
    }
    for variable, text in texts.items():
        if path := os.environ.get(variable):
            try:
                with open(path, "a", encoding="utf-8") as out:
                    out.write(text)
            except OSError as bad:
                console.warning(f"{variable}={path}: cannot be written: {bad.strerror}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for level, command in (("error", "error"), ("warn", "warning")):
            for gate in failures(record, level):
                text = missed(gate).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
                console.annotation(f"::{command} title=gtool eval::{text}")


def _numbers(record: Record) -> dict[str, str]:
    """Return each metric's value, then the other numbers that gates name, by names of letters, digits and _."""
    names = [*record.get("metrics", {}), *(gate["metric"] for gate in record.get("gates", ()))]
    found = {name: find_number(record, name) for name in names}
    return {
        re.sub(r"\W", "_", name, flags=re.ASCII): repr(value)
        for name, value in found.items()
        if value is not None and math.isfinite(value)
    }
