"""`gtool recipes`: list, show and copy the recipes that come with gtool."""

import re
import sys
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import typer

from gtool import console
from gtool.cli.options import Command, Group, Json
from gtool.errors import CheckpointError, RecipeError, did_you_mean

app = typer.Typer(cls=Group, invoke_without_command=True)
Name = Annotated[str, typer.Argument(help="A name from `gtool recipes ls`.")]


@app.callback()
def recipes(context: typer.Context) -> None:
    """List, show and copy the recipes that come with gtool."""
    if context.invoked_subcommand is None:
        ls()


@app.command(cls=Command)
def ls(as_json: Json = False) -> None:
    """List the recipes: name, resolution, hardware, time, weights and a picture where there are any."""
    from gtool.config.recipe import shipped_recipes

    entries = [_describe(name) for name in shipped_recipes()]
    if as_json:
        return console.result_json({"recipes": entries})
    for entry in entries:
        console.result(f"{entry['name']:<26}{entry['resolution']:>4} px  {entry['summary']}")
        more = [f"{key}: {entry[key]}" for key in ("weights", "picture") if entry[key]]
        console.result(f"{'':<26}{'; '.join([entry['hardware'], entry['time'], *more])}")
    console.notice("next: gtool recipes show NAME, gtool recipes cp NAME, gtool train MODEL --recipe NAME")


@app.command(cls=Command)
def show(name: Name) -> None:
    """Print a recipe as it is."""
    sys.stdout.write(_find(name).read_text(encoding="utf-8"))
    sys.stdout.flush()


@app.command(cls=Command)
def cp(
    name: Name,
    destination: Annotated[
        Path | None, typer.Argument(help="A new file, or a folder; default the recipe's own name.")
    ] = None,
) -> None:
    """Copy a recipe to edit it; an existing file is never overwritten."""
    from gtool.io.files import atomic_write

    source = _find(name)
    path = destination or Path(source.name)
    path = path / source.name if path.is_dir() else path
    if path.exists():
        raise CheckpointError(f"{path}: exists already; name another file")
    with atomic_write(path) as temporary:
        temporary.write_bytes(source.read_bytes())
    console.notice(f"next: edit it, then gtool train {source.parent.name} --recipe {path}")
    console.result(str(path))


def _find(name: str) -> Path:
    """Return the file of a shipped recipe; its model may be left out where that leaves one."""
    from gtool.config.recipe import find_recipe, shipped_recipes

    names = shipped_recipes()
    found = [known for known in names if name in (known, known.partition("/")[2])]
    if len(found) > 1:
        raise RecipeError(f"recipe `{name}` exists for several models: {', '.join(found)}")
    if not found and not name.endswith(".toml"):
        # The part that was typed decides what is near.
        known = names if "/" in name else [known.partition("/")[2] for known in names]
        near = did_you_mean(name, known)
        hint = near if near.startswith("; did") else "; `gtool recipes ls` lists all"
        raise RecipeError(f"recipe `{name}` does not exist{hint}")
    return find_recipe(found[0] if found else name)


def _describe(name: str) -> dict[str, Any]:
    """Return what a recipe and the comment at its top say: a sentence, and lines such as `time: 2 h`."""
    from gtool.config.recipe import read_table, recipes_folder

    path = recipes_folder() / f"{name}.toml"
    picture = path.with_suffix(".webp")
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    comment = [line.lstrip("# ").rstrip() for line in lines]
    matches = [re.fullmatch(r"(\w+):\s+(.+)", line) for line in comment]
    facts = {match[1].lower(): match[2] for match in matches if match}
    return {
        "name": name,
        "resolution": int(read_table(path).get("data", {}).get("resolution", 32)),
        "summary": re.split(r"\.(?:\s|$)", " ".join(takewhile(bool, comment)), maxsplit=1)[0],
        "hardware": facts.get("hardware", "any machine"),
        "time": facts.get("time", "time unknown"),
        "result": facts.get("result", "unknown"),
        "weights": facts.get("weights"),
        "picture": str(picture) if picture.is_file() else None,
    }
