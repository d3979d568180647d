"""`gtool recipes` and its verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gtool.cli.options import Json

app = typer.Typer(invoke_without_command=True)


@app.callback()
def recipes(context: typer.Context) -> None:
    """List, show and copy the recipes that come with gtool."""
    if context.invoked_subcommand is None:
        recipes_ls()


@app.command("ls")
def recipes_ls(as_json: Json = False) -> None:
    """List the recipes: name, resolution, hardware, time."""
    from gtool.cli.recipes_command import ls

    ls(as_json=as_json)


@app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="A name from `gtool recipes ls`.")]) -> None:
    """Print a recipe as it is."""
    from gtool.cli.recipes_command import show

    show(name)


@app.command("cp")
def recipes_cp(
    name: Annotated[str, typer.Argument(help="A name from `gtool recipes ls`.")],
    destination: Annotated[Path | None, typer.Argument(help="A new file, or a folder.")] = None,
) -> None:
    """Copy a recipe to edit it; never over a file."""
    from gtool.cli.recipes_command import cp

    cp(name, destination)
