"""Options that several verbs share, and the panels of their help pages."""

from __future__ import annotations

from typing import Annotated

import typer

OUTPUT, DEVICE = "Output", "Device"
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any recipe value: `train.batch_size=16`."),
]
Device = Annotated[
    str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.", rich_help_panel=DEVICE)
]
Precision = Annotated[str, typer.Option(help="`auto`, `bf16` or `fp32`.", rich_help_panel=DEVICE)]
Json = Annotated[
    bool, typer.Option("--json", metavar="", help="Print one JSON object on stdout.", rich_help_panel=OUTPUT)
]
