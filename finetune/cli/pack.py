"""``pack``: copy a dataset of many small files into a few large files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from finetune.cli import output
from finetune.cli.app import Answer, command
from finetune.cli.source import load_catalogue
from finetune.errors import UsageError
from finetune.files.outputs import STDOUT, parse_output

if TYPE_CHECKING:
    from collections.abc import Iterator

Data = Annotated[str, typer.Argument(hidden=True)]
Out = Annotated[Path, typer.Argument(hidden=True, parser=parse_output)]
Replace = Annotated[bool, typer.Option("--force", help="Replace an existing pack.")]
FileGb = Annotated[float, typer.Option(metavar="GB", min=0.001, max=200, help="Maximum size of each file.")]
BadImage = Annotated[
    Literal["error", "skip"] | None,
    typer.Option(help="Stop at, or skip, photos that cannot be read; by default as in the recipe."),
]
FINDINGS = 20  # in the table; --json has all


@command("DATA OUT", "finetune pack photos/ packed/", "finetune pack mine.yaml packed/ --file-gb 4")
def pack(data: Data, out: Out, file_gb: FileGb = 1.0, on_bad_image: BadImage = None, force: Replace = False) -> Answer:
    """Pack photos into a few large MindRecord files.

    DATA is a folder, a CSV file or a recipe; OUT is a new folder. Recipes use it
    with dataset: {use: mindrecord, root: OUT}. Photos are copied unchanged, so
    runs on a pack are bit-exact with runs on the photos.
    """
    from finetune.data import sources
    from finetune.data.pack.packing import Job
    from finetune.data.pack.packing import pack as packed
    from finetune.display.progress import Progress
    from finetune.machine.environment import count_usable_cores

    if out == STDOUT:
        raise UsageError("standard output cannot hold a pack, which is a folder; name a folder")
    catalogue = load_catalogue()
    changes = () if on_bad_image is None else (f"dataset.on_bad_image={on_bad_image}",)
    plan = sources.load_plan(data, {}, catalogue, changes)
    job = Job(
        dataset=plan.dataset,
        out=out,
        limit=int(file_gb * 1e9),
        skip=plan.recipe.dataset.on_bad_image == "skip",
        workers=count_usable_cores(),
        say=Progress(report=False).say,
        force=force,
        corrections=plan.recipe.dataset.corrections,
    )
    report = packed(job)
    return Answer(data=report, view=lambda: output.render_pairs(list_rows(report)))


def list_rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the report on a pack as names and values."""
    from finetune.data.audit import format_finding

    yield "pack", f"{report['pack']}: {report['files']} files, {report['bytes'] / 1e6:,.1f} MB"
    yield "photos", ", ".join(f"{split} {count:,}" for split, count in report["photos"].items())
    yield "classes", f"{report['classes']:,}"
    findings = report["findings"]
    for finding in findings[:FINDINGS]:
        yield finding["severity"], format_finding(finding)
    if len(findings) > FINDINGS:
        yield "", f"{len(findings) - FINDINGS} more; --json lists them"
    yield "recipe", f"dataset: {{use: mindrecord, root: {report['pack']}}}"
