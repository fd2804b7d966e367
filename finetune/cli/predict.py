"""``predict``: label photos with a trained model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli import completers, output
from finetune.cli.app import Answer, command
from finetune.cli.parameters import Device, Force, make_output_option
from finetune.cli.source import load_catalogue
from finetune.errors import UsageError
from finetune.files.atomic import expand_home
from finetune.files.outputs import Output
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from finetune.data.imagefile import BadImage
    from finetune.model.inputs import Prediction
    from finetune.model.model import Model

ModelPath = Annotated[Path, typer.Argument(hidden=True, autocompletion=completers.offer_models)]
Images = Annotated[list[str], typer.Argument(hidden=True)]
Csv = Annotated[
    Path | None, make_output_option("--csv", help="Write paths, labels and probabilities as CSV; - is standard output.")
]
Unknown = Annotated[
    float | None,
    typer.Option(metavar="RATE", help="Mark photos of none of the classes; RATE of the others are marked, too."),
]
Coverage = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Add the smallest set of labels that has the true one in this SHARE."),
]
Top = Annotated[int, typer.Option(metavar="N", min=1, help="Show the N most likely classes.")]


@command(
    "MODEL IMAGE...",
    "finetune predict runs/mine-001 photo.jpg",
    "finetune predict runs/mine-001 photos/ --csv labels.csv",
    "finetune predict runs/mine-001 photos/ --unknown 0.05 --coverage 0.95",
)
def predict(
    model: ModelPath,
    images: Images,
    csv: Csv = None,
    top: Top = 1,
    unknown: Unknown = None,
    coverage: Coverage = None,
    device: Device = "auto",
    force: Force = False,
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
    opened = open_model(model, device)
    found = opened.predict(given.images, top=top, refused=refused, unknown=unknown, coverage=coverage)
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
    about = {"path": str(each.path), "label": each.label, "probability": each.probability, "top": top}
    more = {"unknown": each.unknown, "known_score": each.known_score, "labels": each.labels}
    return about | {name: value for name, value in more.items() if value is not None}


def format_predictions(found: Sequence[Prediction]) -> str:
    """Return a line for each image and class: probability, label, and last the path, which may contain spaces."""
    names = [[escape_line(label) for label, _ in each.top] for each in found]
    for each, labels in zip(found, names, strict=True):
        if each.labels is not None:
            labels[0] = " or ".join(map(escape_line, each.labels)) or f"uncertain ({labels[0]}?)"
        if each.unknown:
            labels[0] = f"none of the classes ({escape_line(each.label)}?)"
    width = max((len(label) for labels in names for label in labels), default=0)
    lines = []
    for each, labels in zip(found, names, strict=True):
        for rank, (label, (_, probability)) in enumerate(zip(labels, each.top, strict=True)):
            path = escape_line(str(each.path)) if rank == 0 else ""
            lines.append(f"{probability:6.4f}  {label:<{width}}  {path}".rstrip())
    return "\n".join(lines)


def format_table(found: Iterable[Prediction], top: int) -> bytes:
    """Return predictions as CSV: path, label, probability, then label_2, probability_2 and so on.

    After these come ``unknown``, ``known_score`` and ``labels``, separated by ``;``, if they were asked for. Paths are
    written byte by byte, so that the dataset ``csv`` finds the same files.
    """
    more = (name for rank in range(2, top + 1) for name in (f"label_{rank}", f"probability_{rank}"))
    found = list(found)
    asked = [name for name in ("unknown", "known_score", "labels") if any(getattr(e, name) is not None for e in found)]
    rows = [["path", "label", "probability", *more, *asked]]
    for each in found:
        pairs = ((label, f"{probability:.6f}") for label, probability in each.top)
        decided = [format_decision(getattr(each, name)) for name in asked]
        rows.append([str(each.path), *(cell for pair in pairs for cell in pair), *decided])
    return output.format_csv(rows).encode("utf-8", "surrogateescape")


def format_decision(value: bool | float | tuple[str, ...]) -> str:
    """Return a decision as a cell of a table."""
    if isinstance(value, tuple):
        return ";".join(value)
    return str(value).lower() if isinstance(value, bool) else f"{value:.6f}"
