"""``eval``: evaluate a model on labelled photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli import output
from finetune.cli.app import Answer, command
from finetune.cli.parameters import Device, Force, make_output_option
from finetune.cli.predict import ModelPath, open_model
from finetune.errors import UsageError
from finetune.files.atomic import expand_home
from finetune.files.outputs import Output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

INTERVALS = ("accuracy", "macro_f1")  # metrics that are printed with their 95 % intervals
Errors = Annotated[
    Path | None,
    make_output_option("--errors", help="Write the photos with a wrong prediction as CSV; - is standard output."),
]


@command(
    "MODEL [DATA]",
    "finetune eval runs/mine-001",
    "finetune eval runs/mine-001 photos/test --errors errors.csv",
    alone="errors",
)
def eval(
    model: ModelPath,
    data: Annotated[str | None, typer.Argument(hidden=True)] = None,
    errors: Errors = None,
    device: Device = "auto",
    force: Force = False,
) -> Answer:
    """Evaluate a model on labelled photos.

    MODEL is a run folder or a model folder. DATA is a folder with a folder for
    each class, a CSV file or a recipe; test photos are used if there are any.
    Without DATA, or with the photos of the run, the held-back photos are used. If
    the run held none back, it repeats its estimate out of folds.
    """
    if data == "":
        raise UsageError("no data given; name a folder, a CSV file or a recipe")
    target = errors and prepare_table(errors, model, force=force)
    report = open_model(model, device).evaluate(None if data is None else expand_home(data))
    wrong = report.pop("errors")
    content = None
    if target:
        content = target.write(format_errors(wrong))
        report["errors"] = str(errors)
    return Answer(data=report, view=lambda: render_evaluation(report), content=content)


def prepare_table(path: Path, model: Path, *, force: bool) -> Output:
    """Return the table to write; raises ``UsageError`` if it would overwrite a file of the model."""
    from finetune.model import modelfolder
    from finetune.model.exporting import list_own_files

    inputs = list_own_files(modelfolder.locate_folder(expand_home(model)))
    target = Output(path=path, command="eval --errors", force=force, inputs=inputs)
    target.check()
    return target


def format_errors(errors: Sequence[Mapping[str, Any]]) -> bytes:
    """Return wrong predictions as CSV; paths are written byte by byte."""
    from finetune.model.scoring import ERROR_COLUMNS

    rows = [list(ERROR_COLUMNS)]
    for each in errors:
        numbers = {name: f"{each[name]:.6f}" for name in ("probability", "own_probability")}
        rows.append([str(numbers.get(name, each[name])) for name in ERROR_COLUMNS])
    return output.format_csv(rows).encode("utf-8", "surrogateescape")


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

    numbers = [(name, format_metric(report, name)) for name, value in report.items() if is_metric(name, value)]
    classes = Table(box=None, pad_edge=False, header_style="bold")
    classes.add_column("class", overflow="fold")
    for name in ("images", "recall", "recall_interval", "precision"):
        classes.add_column("95 % interval" if name == "recall_interval" else name, justify="right", no_wrap=True)
    worst_first = sorted(report["per_class"], key=lambda each: 2.0 if each["recall"] is None else each["recall"])
    for each in worst_first:
        cells = [output.format_cell(each[name]) for name in ("images", "recall", "precision")]
        cells.insert(2, format_interval(each["recall_interval"]))
        classes.add_row(Text(make_printable(each["class"])), *cells)
    return Group(output.render_pairs([*describe_images(report), *numbers]), Text(), classes)


def is_metric(name: str, value: Any) -> bool:
    """Return whether a value of the report is a metric."""
    return isinstance(value, float) and name != "temperature"


def format_metric(report: dict[str, Any], name: str) -> str:
    """Format a metric, with its 95 % interval if it has one."""
    value = output.format_cell(report[name])
    return f"{value} (95 % interval {format_interval(report[f'{name}_interval'])})" if name in INTERVALS else value


def format_interval(bounds: tuple[float, float] | None) -> str:
    """Format an interval; a dash without one."""
    return "-" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"
