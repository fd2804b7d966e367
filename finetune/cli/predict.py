"""``predict``, ``eval`` and ``export``: use a trained model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from finetune.cli import completers, output
from finetune.cli.app import Answer, command
from finetune.cli.parameters import Device, Force, make_output_option
from finetune.cli.source import load_catalogue
from finetune.errors import UsageError
from finetune.files.atomic import expand_home
from finetune.files.outputs import STDOUT, Output
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import RenderableType

    from finetune.data.imagefile import BadImage
    from finetune.model.inputs import Prediction
    from finetune.model.model import Model

ModelPath = Annotated[Path, typer.Argument(hidden=True, autocompletion=completers.offer_models)]
Images = Annotated[list[str], typer.Argument(hidden=True)]
Csv = Annotated[
    Path | None, make_output_option("--csv", help="Write paths, labels and probabilities as CSV; - is standard output.")
]
Top = Annotated[int, typer.Option(metavar="N", min=1, help="Show the N most likely classes.")]
Out = Annotated[
    Path | None,
    make_output_option("--output", help="File to write, by default in the model folder; - is standard output."),
]


@command(
    "MODEL IMAGE...",
    "finetune predict runs/mine-001 photo.jpg",
    "finetune predict runs/mine-001 photos/ --csv labels.csv",
)
def predict(
    model: ModelPath, images: Images, csv: Csv = None, top: Top = 1, device: Device = "auto", force: Force = False
) -> Answer:
    """Label photos.

    MODEL is a run folder or a model folder; IMAGE is a photo, or a folder with
    photos at any depth. Skipped files are listed. If one of them may be a photo,
    the exit code is 3, after all other photos are labelled.
    """
    from finetune.display.progress import Progress
    from finetune.model import inputs

    check_images_exist(images)
    given = inputs.gather_images(images)
    target = csv and prepare_table(csv, model, given.images, force=force)
    if line := inputs.describe_ignored(given):
        Progress().say(line)
    refused: dict[int, BadImage] = {}
    found = open_model(model, device).predict(given.images, top=top, refused=refused)
    content = target.write(format_table(found, top)) if target else None
    data: dict[str, Any] = {"predictions": [convert_prediction(each) for each in found]}
    data |= {"skipped": inputs.report_skipped(given, refused), "ignored": given.ignored}
    data |= {"csv": str(csv)} if csv else {}
    return Answer(
        data=data,
        view=lambda: format_predictions(found),
        content=content,
        failure=inputs.describe_failure(given, refused),
    )


def prepare_table(csv: Path, model: Path, images: Sequence[str | Path], *, force: bool) -> Output:
    """Return the table to write; raises ``UsageError`` if it would overwrite an image or a file of the model."""
    from finetune.model import modelfolder
    from finetune.model.exporting import list_own_files

    inputs = [*map(expand_home, images), *list_own_files(modelfolder.locate_folder(expand_home(model)))]
    target = Output(path=csv, command="predict --csv", force=force, inputs=inputs)
    target.check()
    return target


def check_images_exist(given: Sequence[str]) -> None:
    """Raise ``UsageError`` that lists the names on the command line that do not exist."""
    missing = [path or "''" for path in given if not path or not os.path.exists(expand_home(path))]
    if missing:
        raise UsageError(f"no such photo or folder: {', '.join(map(escape_line, missing[:10]))}")


def open_model(path: Path, device: str) -> Model:
    """Open the model in a run folder or model folder on a device."""
    from finetune.model import modelfolder

    catalogue = load_catalogue()
    folder = modelfolder.locate_folder(expand_home(path))
    from finetune.display.progress import Progress
    from finetune.machine import device as devices

    chosen = devices.set_up(device=device).name
    return modelfolder.open_model(folder, catalogue, device=chosen, say=Progress().say)


def convert_prediction(each: Prediction) -> dict[str, Any]:
    """Return a prediction, ready for JSON."""
    top = [{"label": label, "probability": probability} for label, probability in each.top]
    return {"path": str(each.path), "label": each.label, "probability": each.probability, "top": top}


def format_predictions(found: Sequence[Prediction]) -> str:
    """Return a line for each image and class: probability, label, and last the path, which may contain spaces."""
    width = max((len(escape_line(label)) for each in found for label, _ in each.top), default=0)
    lines = []
    for each in found:
        for rank, (label, probability) in enumerate(each.top):
            path = escape_line(str(each.path)) if rank == 0 else ""
            lines.append(f"{probability:6.4f}  {escape_line(label):<{width}}  {path}".rstrip())
    return "\n".join(lines)


def format_table(found: Iterable[Prediction], top: int) -> bytes:
    """Return predictions as CSV: path, label, probability, then label_2, probability_2 and so on.

    Paths are written byte by byte, so that the dataset ``csv`` finds the same files.
    """
    more = (name for rank in range(2, top + 1) for name in (f"label_{rank}", f"probability_{rank}"))
    rows = [["path", "label", "probability", *more]]
    for each in found:
        pairs = ((label, f"{probability:.6f}") for label, probability in each.top)
        rows.append([str(each.path), *(cell for pair in pairs for cell in pair)])
    return output.format_csv(rows).encode("utf-8", "surrogateescape")


@command("MODEL [DATA]", "finetune eval runs/mine-001", "finetune eval runs/mine-001 photos/test")
def eval(
    model: ModelPath, data: Annotated[str | None, typer.Argument(hidden=True)] = None, device: Device = "auto"
) -> Answer:
    """Evaluate a model on labelled photos.

    MODEL is a run folder or a model folder. DATA is a folder with a folder for
    each class, a CSV file or a recipe; test photos are used if there are any.
    Without DATA, or with the photos of the run, the held-back photos are used. If
    the run held none back, it repeats its estimate out of folds.
    """
    if data == "":
        raise UsageError("no data given; name a folder, a CSV file or a recipe")
    report = open_model(model, device).evaluate(None if data is None else expand_home(data))
    return Answer(data=report, view=lambda: render_evaluation(report))


def describe_images(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield which images were evaluated, and how many of them were in training, as names and values."""
    if report["part"] == "out of fold":
        yield "part", "training images, each labelled by a head that was fitted without it"
        yield "images", f"{report['images']:,}"
        return
    names = {"valid": "validation images", "test": "test images", "all": "all images"}
    held_back = ", held back from training" if report["held_back"] else ""
    yield "part", f"{names.get(report['part'], report['part'])}{held_back}"
    yield "images", f"{report['images']:,}"
    trained_on = report["trained_on"]
    known = "unknown, because the run has no split.csv"
    yield "trained on", known if trained_on is None else f"{trained_on:,} of these images"
    if report.get("skipped") or report.get("added"):
        yield "left out", f"{report['skipped']:,} trained on, {report['added']:,} added since the run"


def render_evaluation(report: dict[str, Any]) -> RenderableType:
    """Return the metrics, and below them the classes with the worst first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from finetune.display.terminal import make_printable

    numbers = [(name, output.format_cell(value)) for name, value in report.items() if isinstance(value, float)]
    classes = Table(box=None, pad_edge=False, header_style="bold")
    classes.add_column("class", overflow="fold")
    for name in ("images", "recall", "precision"):
        classes.add_column(name, justify="right", no_wrap=True)
    worst_first = sorted(report["per_class"], key=lambda each: 2.0 if each["recall"] is None else each["recall"])
    for each in worst_first:
        cells = (output.format_cell(each[name]) for name in ("images", "recall", "precision"))
        classes.add_row(Text(make_printable(each["class"])), *cells)
    return Group(output.render_pairs([*describe_images(report), *numbers]), Text(), classes)


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
