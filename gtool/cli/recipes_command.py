"""`gtool recipes`: list, show and copy the recipes that come with gtool."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path

from gtool import console
from gtool.config.recipe import find_recipe, read_table, recipes_folder, shipped_recipes
from gtool.errors import CheckpointError, RecipeError, did_you_mean
from gtool.io.files import atomic_write


@dataclass(frozen=True)
class Entry:
    """What the table of recipes says about one."""

    name: str
    resolution: int
    summary: str
    hardware: str
    time: str
    result: str


def ls(*, as_json: bool = False) -> None:
    """Print the shipped recipes with what their top comments say."""
    entries = [_entry(name) for name in shipped_recipes()]
    if as_json:
        return console.result_json({"recipes": [asdict(entry) for entry in entries]})
    for entry in entries:
        console.result(f"{entry.name:<26}{entry.resolution:>4} px  {entry.summary}")
        console.result(f"{'':<26}{entry.hardware}; {entry.time}")
    console.notice("next: gtool recipes show NAME, gtool recipes cp NAME, gtool train MODEL --recipe NAME")


def show(name: str) -> None:
    """Print a recipe as it is.

    Raises:
        RecipeError: no such recipe.
    """
    sys.stdout.write(find_by_name(name).read_text(encoding="utf-8"))
    sys.stdout.flush()


def cp(name: str, destination: Path | None) -> None:
    """Copy a recipe to a new file, here under its own name unless a file or folder is given.

    Raises:
        RecipeError: no such recipe.
        CheckpointError: the file exists or cannot be written.
    """
    source = find_by_name(name)
    path = destination or Path(source.name)
    path = path / source.name if path.is_dir() else path
    if path.exists():
        raise CheckpointError(f"{path}: exists already; name another file")
    with atomic_write(path) as temporary:
        temporary.write_bytes(source.read_bytes())
    console.notice(f"next: edit it, then gtool train {source.parent.name} --recipe {path}")
    console.result(str(path))


def find_by_name(name: str) -> Path:
    """Return the file of a shipped recipe; its model may be left out where that leaves one.

    Raises:
        RecipeError: none, or several of different models.
    """
    names = shipped_recipes()
    found = [known for known in names if name in (known, known.partition("/")[2])]
    if len(found) > 1:
        raise RecipeError(f"recipe `{name}` exists for several models: {', '.join(found)}")
    if not found and not name.endswith(".toml"):
        # The part that was typed decides what is near.
        known = names if "/" in name else [known.partition("/")[2] for known in names]
        raise RecipeError(f"recipe `{name}` does not exist{did_you_mean(name, known)}")
    return find_recipe(found[0] if found else name)


def _entry(name: str) -> Entry:
    path = recipes_folder() / f"{name}.toml"
    comment = _top_comment(path)
    facts = {
        key.lower(): value
        for line in comment
        if (match := re.fullmatch(r"(\w+):\s+(.+)", line))
        for key, value in [match.groups()]
    }
    return Entry(
        name=name,
        resolution=int(read_table(path).get("data", {}).get("resolution", 32)),
        summary=_first_sentence(comment),
        hardware=facts.get("hardware", "any machine"),
        time=facts.get("time", "time unknown"),
        result=facts.get("result", "unknown"),
    )


def _first_sentence(comment: list[str]) -> str:
    paragraph = " ".join(takewhile(bool, comment))
    return re.split(r"\.(?:\s|$)", paragraph, maxsplit=1)[0]


def _top_comment(path: Path) -> list[str]:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return lines
