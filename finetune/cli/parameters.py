"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from finetune.cli import offers

Device = Annotated[Literal["auto", "cpu", "gpu", "ascend"], typer.Option(help="Where to compute.")]
Words = Annotated[list[str] | None, typer.Argument(hidden=True, autocompletion=offers.words)]
