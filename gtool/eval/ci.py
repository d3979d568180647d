"""What pipelines are told of a result: GitHub's step summary, outputs and annotations, GitLab's metrics.

The names of variables and the escapes are those of GitHub's documentation on workflow commands and variables.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gtool import console
from gtool.eval.gates import failures, find_number
from gtool.eval.report.record import shown
from gtool.eval.report.table import markdown, missed
from gtool.io.files import atomic_write

TITLE = "gtool eval"


def tell_github(record: Mapping[str, Any]) -> None:
    """Append to the step's summary and outputs where there are such files, and annotate within Actions."""
    record = shown(record)
    _append("GITHUB_STEP_SUMMARY", markdown(record) + "\n")
    lines = [f"{_key(name)}={value!r}" for name, value in numbers(record).items()]
    if record.get("gates"):
        lines.append(f"passed={str(not failures(record)).lower()}")
    _append("GITHUB_OUTPUT", "".join(f"{line}\n" for line in lines))
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    for level, command in (("error", "error"), ("warn", "warning")):
        for gate in failures(record, level):
            console.annotation(f"::{command} title={_property(TITLE)}::{_message(missed(gate))}")


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return each metric's value by name, then the other numbers that gates name."""
    names = [*record.get("metrics", {}), *(gate["metric"] for gate in record.get("gates", ()))]
    found = {name: find_number(record, name) for name in names}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def write_gitlab_metrics(path: Path, record: Mapping[str, Any]) -> None:
    """Write `name value` lines, which GitLab compares between a branch and its target.

    Raises:
        CheckpointError: the file cannot be written.
    """
    lines = [f"{_key(name)} {value!r}\n" for name, value in numbers(record).items()]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _key(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def _append(variable: str, text: str) -> None:
    path = os.environ.get(variable)
    if not path or not text:
        return
    try:
        with open(path, "a", encoding="utf-8") as out:
            out.write(text)
    except OSError as bad:
        console.warning(f"{variable}={path}: cannot be written: {bad.strerror}")


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
