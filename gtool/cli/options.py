"""What the verbs share on the command line: options that several have, and how help shows them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from gtool.runtime import PRECISIONS

OUTPUT, DEVICE = "Output", "Device"  # panels of help pages
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=OUTPUT)
]
Device = Annotated[
    str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.", rich_help_panel=DEVICE)
]


def _known_precision(value: str | None) -> str | None:
    if value is not None and value not in PRECISIONS:
        raise typer.BadParameter(f"precision `{value}` does not exist; use {', '.join(PRECISIONS)}")
    return value


Precision = Annotated[
    str,
    typer.Option(
        help="Of the networks: `auto` (bf16 where the hardware has it), `bf16` or `fp32`.",
        callback=_known_precision,
        rich_help_panel=DEVICE,
    ),
]


class _Help:
    """Help without a type beside flags: Typer shows the type of every option, `<bool>` too."""

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        for param in self.get_params(ctx):
            if getattr(param, "is_flag", False):
                param.metavar = ""
        super().format_help(ctx, formatter)  # type: ignore[misc]


class Command(_Help, TyperCommand):
    """A verb."""


class Group(_Help, TyperGroup):
    """A verb with verbs of its own."""
