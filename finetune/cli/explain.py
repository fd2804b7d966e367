"""``explain``: heat maps of the parts of a photo that a prediction comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli import output
from finetune.cli.app import Answer, command
from finetune.cli.parameters import Device, Force
from finetune.cli.predict import Images, ModelPath, check_images_exist, open_model
from finetune.files.atomic import expand_home
from finetune.files.outputs import Output, check_all
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.data.imagefile import BadImage

Folder = Annotated[
    Path | None,
    typer.Option("--output", metavar="DIR", help="Folder for the pictures; by default explanations in the run."),
]
Class = Annotated[
    str | None, typer.Option("--class", metavar="NAME", help="Explain this class instead of the most likely one.")
]


@command(
    "MODEL IMAGE...",
    "finetune explain runs/mine-001 photo.jpg",
    "finetune explain runs/mine-001 photos/ --class daisy --output maps",
)
def explain(
    model: ModelPath,
    images: Images,
    folder: Folder = None,
    label: Class = None,
    device: Device = "auto",
    force: Force = False,
) -> Answer:
    """Show where in a photo the network sees a class.

    MODEL is a run folder or a model folder; IMAGE is a photo, or a folder with
    photos at any depth. For each photo, a picture with a heat map over the part
    that the network sees is written. Skipped files are listed, with exit code 3.
    """
    from finetune.display.progress import Progress
    from finetune.explain.explain import explain_images
    from finetune.files import atomic
    from finetune.model import inputs, modelfolder

    check_images_exist(images)
    given = inputs.gather_images(images)
    place = expand_home(folder) if folder else locate_pictures(modelfolder.locate_folder(expand_home(model)))
    files = name_pictures(place, given.images)
    targets = [Output(path=file, command="explain", force=force, inputs=list_inputs(given.images)) for file in files]
    with atomic.translate_disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
    check_all(targets)
    if line := inputs.describe_ignored(given):
        Progress().say(line)
    refused: dict[int, BadImage] = {}
    found = explain_images(open_model(model, device), given.images, label=label, refused=refused)
    used = [target for index, target in enumerate(targets) if index not in refused]
    rows: list[dict[str, Any]] = []
    for target, each in zip(used, found, strict=True):
        target.write(each.encode())
        about = {"path": str(each.path), "label": each.label, "probability": each.probability, "method": each.method}
        rows.append({**about, "file": str(target.path)})
    data = {"folder": str(place), "explanations": rows, "skipped": inputs.report_skipped(given, refused)}
    return Answer(
        data=data,
        view=lambda: output.render_pairs(
            (f"{each['probability']:.4f}", escape_line(f"{each['label']}  {each['file']}")) for each in rows
        ),
        failure=inputs.describe_failure(given, refused),
    )


def locate_pictures(folder: Path) -> Path:
    """Return the default folder of the pictures: in the run of a model folder, or in the model folder itself."""
    run = folder.parent if folder.name == "model" and (folder.parent / "recipe.yaml").is_file() else folder
    return run / "explanations"


def name_pictures(folder: Path, images: Sequence[Any]) -> list[Path]:
    """Return a file for each image, named as the image; images of the same name are numbered."""
    taken: set[str] = set()
    files = []
    for image in images:
        stem = Path(str(image)).stem
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.casefold())
        files.append(folder / f"{name}.png")
    return files


def list_inputs(images: Sequence[Any]) -> list[Path]:
    """Return the images as paths, which must not be overwritten."""
    return [expand_home(image) for image in images]
