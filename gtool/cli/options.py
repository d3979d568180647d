"""Options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any recipe value: `train.batch_size=16`."),
]
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
