"""Records of `gtool eval` as files: read, made fit for JSON, kept beside a run, and where they come from."""

import json
import math
import platform
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gtool import console
from gtool.errors import DataError, printable
from gtool.io.files import digest_of

SCHEMA = 1
GIT_SECONDS = 10  # a working tree on a slow disk must not hold up a result


def read_baseline(path: Path) -> dict[str, Any]:
    """Return the record of a .json file, or the last of a .jsonl file; None for numbers that JSON does not have.

    DataError: no such file, or no record of `gtool eval`.
    """
    try:
        text = path.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else [text]
        return _parse(lines[-1])
    except OSError as bad:
        raise DataError(f"{path}: cannot be read: {bad.strerror}") from None
    except IndexError:
        why = f"no record of `gtool eval` (--baseline); write one with -o {path.stem}.json"
    except DataError as bad:
        why = str(bad)
    except (ValueError, RecursionError):
        why = "is no JSON, so no record of `gtool eval`"
    raise DataError(f"{path}: {why}")


def history(weights: Path | None) -> list[dict[str, Any]]:
    """Return the earlier records of the run that weights lie in, oldest first; damaged lines are left out."""
    path = weights.parent / "eval.jsonl" if weights else None
    if path is None or not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(_parse(line))
        except (ValueError, DataError):
            continue
    return records


def _parse(text: str) -> dict[str, Any]:
    """Return a record; ValueError for text that is no JSON, DataError for other JSON."""
    record = json.loads(text)
    metrics = record.get("metrics", {}) if isinstance(record, dict) else None
    if not isinstance(metrics, dict) or not all(isinstance(found, dict) for found in metrics.values()):
        raise DataError("is no record of `gtool eval`")
    if record.get("schema") != SCHEMA:
        raise DataError(f"a record of schema {record.get('schema')}; this gtool reads {SCHEMA}")
    return plain(record)  # a baseline of infinity would let everything pass


def plain(record: Any) -> Any:
    """Return a record with None in the place of numbers that JSON does not have."""
    return _map_leaves(record, lambda x: None if isinstance(x, float) and not math.isfinite(x) else x)


def shown(record: Any) -> Any:
    """Return a record with all its texts fit for a line of a table."""
    return _map_leaves(record, lambda x: printable(x) if isinstance(x, str) else x)


def _map_leaves(found: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(found, Mapping):
        return {key: _map_leaves(value, change) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_map_leaves(value, change) for value in found]
    return change(found)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record to a file of lines, with one write; a line that a crash cut short is closed first.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(plain(record), sort_keys=True, allow_nan=False) + "\n"
    with path.open("ab+") as out:
        if out.tell() > 0:
            out.seek(-1, 2)
            line = line if out.read(1) == b"\n" else "\n" + line
        out.write(line.encode())


def keep(record: Mapping[str, Any], weights: Path | None) -> None:
    """Append the record to the run's eval.jsonl, where the weights lie in a run."""
    if weights is None or not (weights.parent / "recipe.toml").is_file():
        return
    path = weights.parent / "eval.jsonl"
    try:
        append_line(path, record)
    except OSError as bad:
        console.warning(f"{path}: the record could not be kept: {bad.strerror}")


def provenance(weights: Path | None) -> dict[str, Any]:
    """Return what a result depends on besides its options: digest of the weights, versions, commit of this folder."""
    packages = {name: version(name) for name in ("torch", "numpy", "pillow")}
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return {
        "versions": {"python": platform.python_version(), **packages},
        "git": {"commit": commit, "dirty": None if changed is None else bool(changed)} if commit else None,
        **({} if weights is None else {"weights_sha256": digest_of(weights)}),
    }


def _git(*words: str) -> str | None:
    """Return what git says of the current folder; None outside a repository."""
    try:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=GIT_SECONDS, check=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
