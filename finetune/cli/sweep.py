"""``run`` with lists of values: a sweep, with one table and one chart of all runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.app import Answer
from finetune.errors import DivergedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import RenderableType

    from finetune.catalogue import Catalogue
    from finetune.cli.source import RecipeArguments
    from finetune.recipe.plan import Plan
    from finetune.sweep.axes import Axis
    from finetune.sweep.runs import Sweep

    Check = Callable[[Plan, Catalogue], Answer]


def split_axes(asked: RecipeArguments, catalogue: Catalogue, output: Path | None) -> tuple[list[Axis], RecipeArguments]:
    """Split a command line into the axes of a sweep and the remaining overrides."""
    from finetune.sweep import axes

    if not any(axes.parse_list(change) for change in asked.changes):
        return [], asked
    if asked.recipe == "-":
        raise UsageError("standard input can be read only once; pass the recipe as a file to use lists of values")
    found, rest = axes.split_axes(
        asked.changes, lambda changes: replace(asked, changes=tuple(changes)).plan(catalogue, output=output)
    )
    return found, replace(asked, changes=tuple(rest))


def start_sweep(
    found: list[Axis], asked: RecipeArguments, catalogue: Catalogue, output: Path | None, *, dry_run: bool, check: Check
) -> Answer:
    """Start a sweep; raises the mistakes of all its runs before the first run starts."""
    from finetune.display.progress import Progress
    from finetune.sweep import axes, runs
    from finetune.sweep.axes import judge_alike
    from finetune.training import preflight

    trials = axes.combine_axes(found)
    made = runs.plan_trials(
        trials,
        lambda changes: replace(asked, changes=(*asked.changes, *changes)).plan(catalogue, output=output),
    )
    for plan in made:
        preflight.check_machine(plan)
    made = judge_alike(made, Progress().say)
    if any(axis.key == "seed" or axis.key.startswith("dataset.") for axis in found):
        Progress().say(
            "warning: runs with different seeds or datasets are evaluated on different images; compare with care"
        )
    if dry_run:
        first = check(made[0], catalogue)
        return replace(first, data={**first.data, "sweep": [trial.values for trial in trials]})
    return resume_sweep(runs.create_sweep(trials, made), catalogue)


def resume_sweep(sweep: Sweep, catalogue: Catalogue, *, allow_changed: bool = False) -> Answer:
    """Train the remaining runs of a sweep, and return the results of all runs."""
    from finetune.display.progress import Progress
    from finetune.display.summary import format_path
    from finetune.files import atomic
    from finetune.sweep import runs
    from finetune.sweep.runs import draw_chart

    progress = Progress(report=False)
    if not allow_changed:
        runs.check_unchanged(sweep, catalogue, progress.say)

    def train(plan: Plan, folder: Path | None) -> tuple[Mapping[str, Any], Path]:
        return train_one(plan, catalogue, folder, progress, allow_changed=allow_changed)

    runs.run_sweep(sweep, catalogue, train, progress.say)
    drawn = draw_chart(sweep)
    if drawn is not None:
        atomic.write_text(sweep.folder / "sweep.svg", drawn)
    failed = [row for row in sweep.rows if row.error is not None]
    told = f"{len(failed)} of {len(sweep.rows)} runs diverged; remove their values"
    picture_at = format_path(sweep.folder / "sweep.svg") if drawn is not None else None
    failure = DivergedError(told) if failed else None
    return Answer(data=sweep.to_json(), view=lambda: render_table(sweep, picture_at), failure=failure)


def train_one(
    plan: Plan, catalogue: Catalogue, folder: Path | None, progress: Any, *, allow_changed: bool = False
) -> tuple[Mapping[str, Any], Path]:
    """Train or resume one run, in as many processes as its recipe sets; return its result and folder."""
    from finetune.distributed.launch import plan_launch
    from finetune.training import engine

    started = plan_launch(plan.recipe)
    if started is not None:
        from finetune.launch import launcher

        launched = launcher.run_processes(started, plan, resume=folder, allow_changed=allow_changed, progress=progress)
        return launched["result"], Path(launched["folder"])
    progress.phase = 0
    done = engine.fine_tune(
        plan, catalogue, resume=folder, allow_changed=allow_changed, watchers=[progress], say=progress.say
    )
    return done.result or {}, done.folder


def render_table(sweep: Sweep, picture_at: str | None) -> RenderableType:
    """Return the table of a sweep with its best run marked, and the paths of its folder and chart."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from finetune.cli.output import format_cell
    from finetune.display.summary import format_path
    from finetune.display.terminal import make_printable
    from finetune.sweep.axes import format_value

    titles, rows = sweep.render_table()
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        grid.add_column(title.replace("_", " "), overflow="fold")
    grid.add_column("")
    best, keys = sweep.find_best(), len(sweep.keys)
    for row, values in zip(sweep.rows, rows, strict=True):
        texts = [*map(format_value, values[:keys]), *map(format_cell, values[keys:])]
        marked = row is best
        grid.add_row(
            *(Text(make_printable(each)) for each in texts), "best" if marked else "", style="green" if marked else ""
        )
    lines = [Text(f"sweep {format_path(sweep.folder)}")]
    return Group(grid, *lines, *([Text(f"chart {picture_at}")] if picture_at else []))
