"""``report``: a page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli import completers
from finetune.cli.app import Answer, command
from finetune.cli.parameters import Device, Force, make_output_option
from finetune.cli.predict import open_model
from finetune.files.atomic import expand_home
from finetune.files.outputs import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.explain.explanation import Explanation

RunFolder = Annotated[Path, typer.Argument(hidden=True, autocompletion=completers.offer_models)]
Out = Annotated[Path | None, make_output_option("--output", help="File to write, by default report.html in the run.")]


@command(
    "RUN",
    "finetune report runs/mine-001",
    "finetune report runs/mine-001 --output mine.html",
    alone="file",
)
def report(run: RunFolder, file: Out = None, device: Device = "auto", force: Force = False) -> Answer:
    """Write a page about a run.

    Every run writes report.html when it ends; this command writes it again, or
    for a run that did not end. The page is one file and loads nothing: verdict,
    data, training, results of each class, confusion, photos, calibration.
    """
    from finetune.model.exporting import list_own_files
    from finetune.report import run as reports
    from finetune.report.records import read_records

    folder = expand_home(run)
    records = read_records(folder)
    path = file or folder / reports.NAME
    inputs = [each for each in list_own_files(folder / "model") if each.name != reports.NAME]
    target = Output(path=path, command="report", force=force or file is None, inputs=inputs)
    target.check()

    def explain(images: Sequence[Any]) -> list[Explanation]:
        from finetune.explain.explain import explain_images

        return explain_images(open_model(folder, device), list(images))

    content = target.write(reports.render_report(records, explain if records.model else None).encode())
    return Answer(data={"report": str(path)}, view=lambda: str(path), content=content)
