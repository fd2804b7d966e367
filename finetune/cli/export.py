"""``export``: write a model in a format for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from finetune.cli import output
from finetune.cli.app import Answer, command
from finetune.cli.parameters import Device, Force, make_output_option
from finetune.cli.predict import ModelPath, open_model
from finetune.files.atomic import expand_home
from finetune.files.outputs import STDOUT

if TYPE_CHECKING:
    from finetune.model.model import Model

Out = Annotated[
    Path | None,
    make_output_option("--output", help="File to write, by default in the model folder; - is standard output."),
]


@command("MODEL", "finetune export runs/mine-001 --format onnx", alone="file")
def export(
    model: ModelPath,
    format: Annotated[Literal["onnx", "mindir"], typer.Option(help="Format of the file.")] = "onnx",
    file: Out = None,
    device: Device = "auto",
    force: Force = False,
) -> Answer:
    """Export a model to ONNX or MindIR.

    MODEL is a run folder or a model folder. Labels and preprocessing are written
    next to the file. The file is run once and compared with the model: ONNX with
    onnxruntime, or with OpenVINO if that is not installed; MindIR with MindSpore.
    If the probabilities differ, that is an error, and the file is removed.
    """
    from finetune.model import modelfolder
    from finetune.model.exporting import plan_outputs

    folder = modelfolder.locate_folder(expand_home(model))
    path = file or folder / f"model.{format}"
    if path == STDOUT:
        return export_to_stdout(open_model(model, device), format)
    plan_outputs(path, format, folder, force=force)
    report = open_model(model, device).export(path, format, force=force)
    return Answer(
        data=report, view=lambda: output.render_pairs((name, output.format_cell(v)) for name, v in report.items())
    )


def export_to_stdout(model: Model, format: Literal["onnx", "mindir"]) -> Answer:
    """Return an exported file for standard output, and print the result of its comparison as a message."""
    from tempfile import TemporaryDirectory

    from finetune.display.progress import Progress

    with TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{format}"
        report = model.export(path, format)
        content = path.read_bytes()
    Progress().say(f"compared: {report['compared']}; largest difference: {report['largest_difference']}")
    return Answer(data=report, content=content)
