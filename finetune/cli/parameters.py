"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from finetune.cli import completers
from finetune.files.outputs import parse_output

Device = Annotated[Literal["auto", "cpu", "gpu", "ascend"], typer.Option(help="Device to compute on.")]
Words = Annotated[list[str] | None, typer.Argument(hidden=True, autocompletion=completers.offer_words)]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]


def make_output_option(*names: str, help: str) -> Any:
    """Return the option for a file that a command writes; ``-`` is standard output."""
    return typer.Option(*names, metavar="FILE", parser=parse_output, help=help)
