"""``compare``: whether one run is better than another, on the same images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli import completers, output, source
from finetune.cli.app import Answer, command
from finetune.cli.parameters import Force, make_output_option
from finetune.errors import UsageError
from finetune.files.atomic import expand_home
from finetune.files.outputs import Output

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN = 10  # images that changed sides in the table
Runs = Annotated[list[Path], typer.Argument(hidden=True, autocompletion=completers.offer_models)]
Data = Annotated[
    str | None, typer.Option("--data", metavar="DATA", help="Labelled photos to compare on, instead of the runs' own.")
]
Html = Annotated[Path | None, make_output_option("--html", help="Write the comparison as a page; - is stdout.")]


@command(
    "RUN RUN...",
    "finetune compare runs/mine-001 runs/mine-002",
    "finetune compare runs/a-001 runs/b-001 --data test --html compare.html",
    alone="html",
)
def compare(runs: Runs, data: Data = None, html: Html = None, force: Force = False) -> Answer:
    """Compare runs on the same images.

    Shows the recipe keys that differ, metrics with 95 % intervals, and for each
    pair whether the second run is better: yes, no, or cannot be told with so few
    images. Runs with different test images or classes are refused, unless --data
    names photos for all of them.
    """
    from finetune.compare.compare import compare_runs, describe_verdict
    from finetune.compare.runs import read_models, read_run
    from finetune.display.progress import Progress

    folders = [expand_home(run) for run in runs]
    if len(folders) < 2:
        raise UsageError("compare needs at least two runs; name another one")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("compare: a run is named twice; name different runs")
    target = Output(path=html, command="compare --html", force=force) if html else None
    if target:
        target.check()
    if data is None:
        found = [read_run(folder) for folder in folders]
    else:
        found = read_models(folders, source.load_catalogue(), expand_home(data), Progress(report=False).say)
    report = compare_runs(found)
    content = None
    if target:
        from finetune.report.comparison import render_comparison

        verdicts = [describe_verdict(pair, report["images"]) for pair in report["pairs"]]
        content = target.write(render_comparison(report, verdicts).encode())
        report["html"] = str(html)
    return Answer(data=report, view=lambda: render_report(report), content=content)


def render_report(report: dict[str, Any]) -> RenderableType:
    """Return the metrics of all runs, the recipe keys that differ, the verdicts, and images that changed sides."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [render_metrics(report)]
    if report["recipe"]:
        parts += [Text(), render_differences(report)]
    for pair in report["pairs"]:
        parts += [Text(), output.render_pairs(list_verdict(pair, report["images"]))]
    if report.get("html"):
        parts += [Text(), output.render_pairs([("page", report["html"])])]
    return Group(*parts)


def render_metrics(report: dict[str, Any]) -> RenderableType:
    """Return a row for each run."""
    from rich.table import Table
    from rich.text import Text

    from finetune.display.terminal import make_printable

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{report['images']:,} {report['split']} images", overflow="fold")
    for name in ("accuracy", "95 % interval", "macro F1", "loss", "ece"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in report["runs"]:
        low, high = run["accuracy_interval"]
        numbers = [f"{run[name]:.4f}" for name in ("accuracy", "macro_f1", "loss", "ece")]
        table.add_row(Text(make_printable(run["run"])), numbers[0], f"{low:.3f} to {high:.3f}", *numbers[1:])
    return table


def render_differences(report: dict[str, Any]) -> RenderableType:
    """Return a row for each recipe key that differs."""
    from rich.table import Table
    from rich.text import Text

    from finetune.display.terminal import make_printable

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recipe", style="cyan")
    for run in report["runs"]:
        table.add_column(make_printable(Path(run["run"]).name), overflow="fold")
    for key, values in report["recipe"].items():
        table.add_row(key, *(Text(make_printable(format_value(value))) for value in values))
    return table


def format_value(value: Any) -> str:
    """Format a value of a recipe; a dash for none."""
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def list_verdict(pair: dict[str, Any], images: int) -> list[tuple[str, str]]:
    """Return whether the second run is better, and the images that changed sides, as names and values."""
    from finetune.compare.compare import describe_verdict

    rows = [
        ("better", f"is {pair['second']} better than {pair['first']}? {describe_verdict(pair, images)}"),
        (
            "changed",
            f"{pair['only_second']:,} images are right only in the second, {pair['only_first']:,} only in the first",
        ),
    ]
    for each in pair["changed"][:SHOWN]:
        rows.append(("", f"{each['path']}: '{each['label']}', first '{each['first']}', second '{each['second']}'"))
    if len(pair["changed"]) > SHOWN:
        rows.append(("", f"and {len(pair['changed']) - SHOWN:,} more; see --json or --html"))
    return rows
