"""``predict``, ``eval`` and ``export``: what to do with a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from finetune.cli import offers, output
from finetune.cli.app import Answer, command
from finetune.cli.parameters import Device
from finetune.cli.source import load_catalogue
from finetune.errors import DataError, UsageError
from finetune.files import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from finetune.data.imagefile import BadImage
    from finetune.model.model import Model
    from finetune.model.prediction import Prediction

ModelPath = Annotated[Path, typer.Argument(hidden=True, autocompletion=offers.models)]
Images = Annotated[list[str], typer.Argument(hidden=True)]
Csv = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a table of paths, labels and probabilities.")]
Top = Annotated[int, typer.Option(metavar="N", min=1, help="Show the N likeliest classes.")]
Out = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Where to write; else beside the model.")]
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".avif", ".jp2")


@command(
    "MODEL IMAGE...",
    "finetune predict runs/mine-001 photo.jpg",
    "finetune predict runs/mine-001 photos/ --csv labels.csv",
)
def predict(model: ModelPath, images: Images, csv: Csv = None, top: Top = 1, device: Device = "auto") -> Answer:
    """Label photos.

    MODEL is a run folder or a model folder; IMAGE is a photo, or a folder with
    photos at any depth.
    """
    paths = list(photos(images))
    if csv is not None:
        atomic.check_place(csv)
    refused: dict[int, BadImage] = {}
    found = opened(model, device).predict(paths, top=top, refused=refused)
    if csv is not None:
        atomic.write_text(csv, table(found, top))
    data: dict[str, Any] = {"predictions": [prediction(each) for each in found]}
    data |= {"csv": str(csv)} if csv else {}
    return Answer(data=data, view=lambda: sentences(found), failure=left_out(refused, len(paths)))


def left_out(refused: Mapping[int, BadImage], photos: int) -> DataError | None:
    """Return what to say of photos that could not be used, the first ten by name; nothing where there are none."""
    if not refused:
        return None
    shown = [str(refused[index]) for index in sorted(refused)[:10]]
    more = [f"and {len(refused) - 10} more"] if len(refused) > 10 else []
    head = f"{len(refused)} of {photos} photos could not be labelled; mend or remove them"
    return DataError("\n".join([head, *shown, *more]))


def photos(given: Sequence[str]) -> Iterator[Path]:
    """Yield the files named and those in folders, in order; raise ``UsageError`` for all that cannot be meant."""
    missing = [path or "''" for path in given if not path or not os.path.exists(path)]
    if missing:
        raise UsageError(f"no such photo or folder: {', '.join(missing[:10])}")
    for path in map(Path, given):
        if not os.path.isdir(path):
            yield path
            continue
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and visible(p, path) and p.is_file())
        if not inside:
            raise UsageError(f"no photos in {path}; photos end with {' '.join(ENDINGS)}")
        yield from inside


def visible(path: Path, top: Path) -> bool:
    """Tell whether no part of ``path`` below ``top`` is hidden."""
    return not any(part.startswith(".") for part in path.relative_to(top).parts)


def opened(path: Path, device: str) -> Model:
    """Return the model in a run folder or model folder, on a device."""
    from finetune.model import modelfolder

    catalogue = load_catalogue()
    folder = modelfolder.locate(path.expanduser())
    from finetune.devices import device as devices
    from finetune.display.progress import Progress

    chosen = devices.setup(device=device).name
    return modelfolder.open_model(folder, catalogue, device=chosen, say=Progress().say)


def prediction(each: Prediction) -> dict[str, Any]:
    """Return a prediction for programs."""
    top = [{"label": label, "probability": probability} for label, probability in each.top]
    return {"path": each.path, "label": each.label, "probability": each.probability, "top": top}


def sentences(found: Sequence[Prediction]) -> str:
    """Return a line for each image and class: probability, label, and the path last, since it may hold anything."""
    from finetune.display.terminal import printable

    width = max((len(printable(label)) for each in found for label, _ in each.top), default=0)
    lines = []
    for each in found:
        for rank, (label, probability) in enumerate(each.top):
            path = printable(each.path) if rank == 0 else ""
            lines.append(f"{probability:6.4f}  {printable(label):<{width}}  {path}".rstrip())
    return "\n".join(lines)


def table(found: Iterable[Prediction], top: int) -> str:
    """Return predictions as CSV: path, label, probability, then label_2, probability_2 and so on."""
    import csv
    from io import StringIO

    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = (name for rank in range(2, top + 1) for name in (f"label_{rank}", f"probability_{rank}"))
    writer.writerow(["path", "label", "probability", *more])
    for each in found:
        pairs = ((label, f"{probability:.6f}") for label, probability in each.top)
        writer.writerow([each.path, *(cell for pair in pairs for cell in pair)])
    return text.getvalue()


@command("MODEL DATA", "finetune eval runs/mine-001 photos/test")
def eval(model: ModelPath, data: Annotated[str, typer.Argument(hidden=True)], device: Device = "auto") -> Answer:
    """Measure a model on labelled photos.

    MODEL is a run folder or a model folder; DATA is a folder with a folder for
    each class, a CSV file or a recipe, whose test photos are used if it has any.
    """
    if not data:
        raise UsageError("no data given; name a folder, a CSV file or a recipe")
    report = opened(model, device).evaluate(Path(data).expanduser())
    return Answer(data=report, view=lambda: evaluation(report))


def evaluation(report: dict[str, Any]) -> RenderableType:
    """Return the metrics, and below them the classes, the worst first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from finetune.display.terminal import printable

    numbers = ((name, output.cell(value)) for name, value in report.items() if not isinstance(value, list | dict))
    classes = Table(box=None, pad_edge=False, header_style="bold")
    classes.add_column("class", overflow="fold")
    for name in ("images", "recall", "precision"):
        classes.add_column(name, justify="right", no_wrap=True)
    worst_first = sorted(report["per_class"], key=lambda each: 2.0 if each["recall"] is None else each["recall"])
    for each in worst_first:
        cells = (output.cell(each[name]) for name in ("images", "recall", "precision"))
        classes.add_row(Text(printable(each["class"])), *cells)
    return Group(output.pairs(numbers), Text(), classes)


@command("MODEL", "finetune export runs/mine-001 --format onnx")
def export(
    model: ModelPath,
    format: Annotated[Literal["onnx", "mindir"], typer.Option(help="For which runtime.")] = "onnx",
    file: Out = None,
    device: Device = "auto",
) -> Answer:
    """Write a model for another runtime.

    MODEL is a run folder or a model folder. Labels and preprocessing are written
    next to the file. The file is run once and compared with the model: ONNX with
    onnxruntime or, where that is not installed, OpenVINO; MindIR with MindSpore.
    A file that gives different probabilities is an error, and is removed.
    """
    network = opened(model, device)
    assert network.folder is not None
    report = network.export(file or network.folder / f"model.{format}", format)
    return Answer(data=report, view=lambda: output.pairs((name, output.cell(v)) for name, v in report.items()))
