"""Options of the command line, declared as the fields of a dataclass for each verb; gtool/cli makes commands of them.

    num: int | None = option("What to sample", "Number of images.", "--num", "-n", min=1)

The order of the fields is that of the help page, and the docstring of the class is what the page begins with.
"""

from collections.abc import Mapping
from dataclasses import Field, field
from typing import Any

import typer

from gtool.runtime import PRECISIONS

OUTPUT, DEVICE = "Output", "Device"  # panels of help pages


def examples(*lines: str) -> str:
    """Return the end of a help page."""
    return "\n\n".join(["Examples:", *lines])


def option(panel: str, help: str, *names: str, default: Any = None, **settings: Any) -> Any:
    """Return a field for an option in a panel of the help page; settings are those of `typer.Option`."""
    info = typer.Option(..., *names, help=help, rich_help_panel=panel, **settings)
    return field(default=default, metadata={"typer": info})


def argument(help: str, **default: Any) -> Any:
    """Return a field for what is typed without a flag, None where it is left out; or with another `default`."""
    return field(**{"default": None} | default, metadata={"typer": typer.Argument(help=help)})


def flags(panel: str, helps: Mapping[str, str]) -> Any:
    """Return a field for the names of the flags that were given, of one for each name; helps: name -> help."""
    infos = {
        name: typer.Option(..., flag_name(name), help=f"{text}.", rich_help_panel=panel)
        for name, text in helps.items()
    }
    return field(default=(), metadata={"flags": infos})


def flag_of(field: Field[Any]) -> str:
    """Return the name of an option on the command line, the first where it has several."""
    names = field.metadata["typer"].param_decls
    return names[0] if names else flag_name(field.name)


def device() -> Any:
    return option(DEVICE, "`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.", default="auto")


def precision() -> Any:
    text = "Of the networks: `auto` (bf16 where the hardware has it), `bf16` or `fp32`."
    return option(DEVICE, text, default="auto", callback=_known_precision)


def timeout() -> Any:
    return option(DEVICE, "Seconds after which a silent process is taken for lost.", default=180.0, min=1)


def as_json() -> Any:
    return option(OUTPUT, "Print one JSON object on stdout.", "--json", default=False)


def _known_precision(value: str) -> str:
    if value not in PRECISIONS:
        raise typer.BadParameter(f"precision `{value}` does not exist; use {', '.join(PRECISIONS)}")
    return value


def flag_name(name: str) -> str:
    """Return what a field is called on the command line, unless it says otherwise."""
    return f"--{name.replace('_', '-')}"
