"""Names of labels from a file `classes.json` in a data set's folder: a list, or an object with a list `names`."""

from __future__ import annotations

import json
from pathlib import Path

FILE = "classes.json"


def read_names(folder: Path) -> tuple[str, ...] | None:
    """Return the names of the labels 0, 1, ...; None without such a file, or where it holds something else."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    names = found.get("names") if isinstance(found, dict) else found
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)
