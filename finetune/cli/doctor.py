"""``doctor``: check the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli.app import Answer, command
from finetune.cli.parameters import Device
from finetune.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


@command("", "finetune doctor", "finetune doctor --device gpu --measure")
def doctor(
    device: Device = "auto",
    measure: Annotated[bool, typer.Option("--measure", help="Time each stage of the networks; takes minutes.")] = False,
) -> Answer:
    """Check whether this machine is ready to train.

    Reports versions, processor, memory, disk, devices, plugins and environment
    variables, and says how to fix each problem.
    """
    from finetune.doctor.checks import diagnose

    report = diagnose(device, measure=measure)
    stops = sum(remark["level"] == "error" for remark in report["remarks"])
    there = device == "auto" or report["mindspore"].get("devices", {}).get(device, {}).get("available", False)
    said = f"{stops} of these would stop a run{'' if there else f' on {device}'}; follow the hint under each"
    failure = (ResourceError if there else UsageError)(said) if stops else None
    return Answer(data=report, view=lambda: render_table(report["remarks"]), failure=failure)


def render_table(remarks: list[dict[str, Any]]) -> RenderableType:
    """Return a line for each remark, with its remedy below."""
    from rich.table import Table
    from rich.text import Text

    from finetune.display.terminal import make_printable

    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(2):
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for remark in remarks:
        style = STYLES[remark["level"]]
        grid.add_row(Text(remark["level"], style), Text(remark["topic"], "bold"), Text(make_printable(remark["text"])))
        if remark["remedy"]:
            grid.add_row("", "", Text(remark["remedy"], style))
    return grid
