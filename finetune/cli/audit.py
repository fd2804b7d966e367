"""``audit``: find wrong labels, duplicates and poor images in a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli import output, source
from finetune.cli.app import Answer, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finetune.recipe.plan import Plan

Data = Annotated[str, typer.Argument(hidden=True)]
Changes = Annotated[list[str] | None, typer.Argument(hidden=True)]
Folder = Annotated[
    Path | None,
    typer.Option("--output", metavar="DIR", help="Folder of the audits; by default that of the recipe's runs."),
]


@command(
    "RECIPE|FOLDER|CSV [KEY=VALUE]...",
    "finetune audit photos/",
    "finetune audit mine.yaml backbone.use=resnext_nano --json",
)
def audit(data: Data, changes: Changes = None, output: Folder = None) -> Answer:
    """Find wrong labels, duplicates and poor images.

    Uses the features of the recipe's frozen backbone, before or after training.
    Writes audit.html, images.csv with a row for each image, and corrections.csv
    with what it proposes, for dataset.corrections. Your photos stay as they are.
    """
    from finetune.display.progress import Progress
    from finetune.machine import interrupts

    catalogue = source.load_catalogue()
    plan = load_plan(data, tuple(changes or ()), catalogue)
    say = Progress(report=False).say
    from finetune.audit.run import audit_plan

    with interrupts.keep_keyboard_interrupt():
        report = audit_plan(plan, catalogue, folder=output, say=say)
    return Answer(data=report, view=lambda: render_report(report))


def load_plan(data: str, changes: tuple[str, ...], catalogue: Any) -> Plan:
    """Return the plan of a recipe, or of a recipe made for a folder or a CSV file."""
    from finetune.data import sources
    from finetune.files.atomic import expand_home

    path = expand_home(data)
    if path.exists() and not sources.is_recipe(path):
        return sources.load_plan(path, {}, catalogue, changes)
    return source.parse_words((data, *changes)).plan(catalogue)


def render_report(report: dict[str, Any]) -> Any:
    """Render an audit as names and values."""
    return output.render_pairs(list_rows(report))


def list_rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what an audit found as names and values, the most certain first."""
    found, splits = report["found"], report["splits"]
    yield "images", f"{report['images']:,} ({', '.join(f'{name} {number:,}' for name, number in splits.items())})"
    contradictions, copies = count(found["contradictions"], "picture"), count(found["duplicates"], "picture")
    yield "labels", f"{contradictions} with different labels, {found['wrong_labels']:,} probably wrong"
    yield "copies", f"{copies} more than once, {found['leaks']:,} of them in several splits"
    if found["outliers"]:
        yield "outliers", f"{count(found['outliers'], 'image')} like no other"
    if found["quality"]:
        yield "quality", ", ".join(f"{number:,} {name}" for name, number in found["quality"].items())
    for name, number in found["checks"].items():
        yield "check", f"{name}: {count(number, 'image')}"
    if report["unjudged_classes"]:
        yield "few", f"{report['unjudged_classes']:,} classes have fewer than 3 images, too few to judge their labels"
    for each in report["rare_classes"]:
        yield "rare", f"class '{each['class']}' has only {each['images']:,} images"
    for each in report["confused_classes"][:3]:
        yield (
            "confused",
            f"'{each['classes'][0]}' and '{each['classes'][1]}': {100 * each['share']:.0f} % of their images",
        )
    if report["order"]["dependent"]:
        yield "order", "similar images follow each other; keep images of one series together with dataset.groups"
    for each in report["shortcuts"]:
        chance = f"{each['by_chance']:.2f} by chance"
        yield "shortcut", f"{each['property']} alone predicts {each['accuracy']:.2f} of the labels, {chance}"
    yield "audit", f"{report['folder']} ({count(report['proposed'], 'proposed correction')})"
    if report["proposed"]:
        yield "next", f"look at images.csv, then train with dataset.corrections={report['folder']}/corrections.csv"


def count(number: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{number:,} {what}{'s' * (number != 1)}"
