"""What the verbs share on the command line: options that several have, and how help shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from gtool.runtime import PRECISIONS

OUTPUT, DEVICE = "Output", "Device"  # panels of help pages


def option(panel: str, help: str, *names: str, **settings: Any) -> Any:
    """Return an option of a panel of the help page; settings are those of `typer.Option`."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


def _known_precision(value: str | None) -> str | None:
    if value is not None and value not in PRECISIONS:
        raise typer.BadParameter(f"precision `{value}` does not exist; use {', '.join(PRECISIONS)}")
    return value


Json = Annotated[bool, option(OUTPUT, "Print one JSON object on stdout.", "--json")]
Device = Annotated[str, option(DEVICE, "`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.")]
Timeout = Annotated[float, option(DEVICE, "Seconds after which a silent process is taken for lost.", min=1)]
PRECISION = "Of the networks: `auto` (bf16 where the hardware has it), `bf16` or `fp32`."
Precision = Annotated[str, option(DEVICE, PRECISION, callback=_known_precision)]


class _Help:
    """Help that names kinds of values by a word, and flags by nothing: Typer shows `<bool>` and `<list[str]>`."""

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        for param in self.get_params(ctx):
            if param.param_type_name == "argument":
                param.display_type = lambda ctx: None  # its help says it
            elif getattr(param, "is_flag", False):
                param.metavar = ""
            elif param.metavar is None and (kind := getattr(param, "type_descriptor", None)):
                param.metavar = {int: "N", float: "X", Path: "PATH"}.get(kind.annotation, "TEXT")
        super().format_help(ctx, formatter)  # type: ignore[misc]


class Command(_Help, TyperCommand):
    """A verb."""


class Group(_Help, TyperGroup):
    """A verb with verbs of its own."""
