"""Runs of a sweep, one after another in one process, and the record of them in the sweep's folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.display import chart
from finetune.errors import DivergedError, Interrupted, RecipeError, UsageError
from finetune.files import atomic
from finetune.model.metrics import choose_best
from finetune.recipe import plan as plans
from finetune.recipe.document import read_recipe
from finetune.recipe.moved import follow_move
from finetune.sweep.axes import Trial, format_value
from finetune.training import runfolder

if TYPE_CHECKING:
    from finetune.catalogue import Catalogue
    from finetune.display.chart import Point
    from finetune.recipe.plan import Plan


RECORD, RECIPES = "sweep.json", "recipes"
Train = Callable[["Plan", "Path | None"], "tuple[Mapping[str, Any], Path]"]


@dataclass(slots=True, kw_only=True)
class Row:
    """One run of a sweep: its name, its values, and its result or error."""

    name: str
    values: dict[str, Any]
    folder: str | None = None
    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def done(self) -> bool:
        """Return whether the run has finished or failed."""
        return bool(self.result) or self.error is not None


@dataclass(slots=True, kw_only=True)
class Sweep:
    """A sweep and its folder; ``asked`` is the metric of its recipe, which may be ``auto``."""

    folder: Path
    asked: str
    rows: list[Row]

    @property
    def metric(self) -> str:
        """The metric that the runs are compared by; ``auto`` means the one that the first finished run chose."""
        if self.asked != "auto":
            return self.asked
        chosen = (name for row in self.rows for name in row.result.get("best") or {} if name.startswith("val_"))
        return next(chosen, "val_loss").removeprefix("val_")

    @property
    def keys(self) -> list[str]:
        """The keys that the sweep varies."""
        return list(self.rows[0].values)

    def score(self, row: Row) -> float | None:
        """Return the best value of the metric in a run; None without a result."""
        best = row.result.get("best") or {}
        value = best.get(f"val_{self.metric}")
        return None if value is None else float(value)

    def find_best(self) -> Row | None:
        """Return the run with the best value, or the first of several with that value."""
        scored = [(score, row) for row in self.rows if (score := self.score(row)) is not None]
        if not scored:
            return None
        return scored[choose_best(self.metric, [score for score, _ in scored])][1]

    def render_table(self) -> tuple[list[str], list[list[Any]]]:
        """Return the titles and the rows of the table of results."""
        tests = [f"test_{self.metric}"] if any(f"test_{self.metric}" in row.result for row in self.rows) else []
        rows = [
            [
                *row.values.values(),
                self.score(row),
                *(row.result.get(name) for name in tests),
                (row.result.get("best") or {}).get("epoch"),
                row.result.get("seconds"),
                row.error or (row.folder and Path(row.folder).name) or "not started",
            ]
            for row in self.rows
        ]
        return [*self.keys, f"val_{self.metric}", *tests, "epoch", "seconds", "run"], rows

    def to_json(self) -> dict[str, Any]:
        """Return the sweep as JSON."""
        best = self.find_best()
        return {
            "sweep": str(self.folder),
            "metric": self.metric,
            "asked": self.asked,
            "best": best and {"run": best.folder, "values": best.values, f"val_{self.metric}": self.score(best)},
            "runs": [
                {"name": row.name, "values": row.values, "run": row.folder, "result": row.result, "error": row.error}
                for row in self.rows
            ],
        }

    def write(self) -> None:
        """Write the sweep into its folder, as ``sweep.json`` and ``sweep.csv``."""
        atomic.write_text(self.folder / RECORD, json.dumps(self.to_json(), indent=1))
        text = io.StringIO()
        titles, rows = self.render_table()
        csv.writer(text, lineterminator="\n").writerows([titles, *rows])
        atomic.write_text(self.folder / "sweep.csv", text.getvalue())


def plan_trials(trials: Sequence[Trial], load: Callable[[Sequence[str]], Plan]) -> list[Plan]:
    """Return the plan of each trial; raises one ``RecipeError`` with the mistakes of all of them."""
    found: list[Plan] = []
    mistakes: list[str] = []
    for trial in trials:
        try:
            found.append(load(trial.changes))
        except RecipeError as error:
            mistakes += error.mistakes
    if mistakes:
        raise RecipeError(dict.fromkeys(mistakes))
    return found


def create_sweep(trials: Sequence[Trial], made: Sequence[Plan]) -> Sweep:
    """Create the folder of a sweep, with the complete recipe of every run."""
    first = made[0].recipe
    folder = runfolder.create_folder(first.output, f"{first.name}-sweep")
    (folder / RECIPES).mkdir()
    for trial, plan in zip(trials, made, strict=True):
        own = plan.recipe.model_copy(update={"name": trial.name, "output": folder.absolute()})
        atomic.write_text(locate_recipe(folder, trial.name), plans.dump_plan(replace(plan, recipe=own)))
    rows = [Row(name=trial.name, values=trial.values) for trial in trials]
    sweep = Sweep(folder=folder, asked=first.evaluate.metric, rows=rows)
    sweep.write()
    return sweep


def locate_recipe(folder: Path, name: str) -> Path:
    """Return the path of a run's recipe."""
    return folder / RECIPES / f"{name}.yaml"


def is_sweep(folder: Path) -> bool:
    """Return whether a folder contains a sweep."""
    return (folder / RECORD).is_file()


def open_sweep(folder: Path) -> Sweep:
    """Read the sweep in a folder; raises ``UsageError`` if its record cannot be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        rows = [
            Row(
                name=each["name"],
                values=each["values"],
                folder=each["run"],
                result=read_newest_result(folder, each["run"], each["result"]),
                error=each["error"],
            )
            for each in record["runs"]
        ]
        return Sweep(folder=folder, asked=record.get("asked", record["metric"]), rows=rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder / RECORD}: cannot be read ({error}); start a new sweep") from error


def read_newest_result(folder: Path, run: str | None, recorded: dict[str, Any]) -> dict[str, Any]:
    """Read the result of a run, which may have been extended since the sweep recorded it."""
    if not run or not recorded:
        return recorded
    try:
        found: dict[str, Any] = json.loads((folder / Path(run).name / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return recorded
    return found


def check_unchanged(sweep: Sweep, catalogue: Catalogue, say: Callable[[str], None]) -> None:
    """Raise ``UsageError`` with a list of what changed since runs of the sweep finished."""
    from finetune.training import finished, older

    changes_of: dict[str, str] = {}  # by all that a run's images depend on, so that the images are compared only once
    for row in sweep.rows:
        folder = sweep.folder / Path(row.folder).name if row.folder and row.result else None
        if folder is None or not (folder / "result.json").exists():
            continue
        plan = plans.load_plan(relocate_recipe(sweep, row), [], catalogue)
        plan = older.keep_settled(older.keep_defaults(plan, folder), folder)
        same = json.dumps([plan.recipe.dataset.model_dump(mode="json"), plan.recipe.seed], sort_keys=True)
        if same not in changes_of:
            changes_of[same] = "; ".join(finished.find_data_changes(folder, plan, catalogue, say))
        if changes_of[same]:
            remedy = "start a new sweep, or add --allow-changed to keep its finished runs as they are"
            raise UsageError(f"{folder} is finished, and {changes_of[same]}; {remedy}")


def relocate_recipe(sweep: Sweep, row: Row) -> Path | Mapping[str, Any]:
    """Return the recipe of a run; its paths are adapted if the sweep's folder was moved."""
    file = locate_recipe(sweep.folder, row.name)
    values = read_recipe(file).values
    recipe = {**values, "output": str(Path(values["output"]).parent)}
    moved = follow_move(values, sweep.folder, recipe)
    return file if moved == values else {**moved, "output": str(sweep.folder.absolute())}


def run_sweep(sweep: Sweep, catalogue: Catalogue, train: Train, say: Callable[[str], None]) -> None:
    """Run every trial that has not finished; a run that was stopped is resumed.

    ``train`` starts a run of a plan, or resumes the one in a folder. A run that diverges is recorded in the table. Any
    other error stops the sweep, which can be resumed later.
    """
    for number, row in enumerate(sweep.rows, 1):
        if row.done:
            continue
        told = ", ".join(f"{key}={format_value(value)}" for key, value in row.values.items())
        say(f"run {number} of {len(sweep.rows)}: {told}")
        plan = plans.load_plan(relocate_recipe(sweep, row), [], catalogue)
        before = sweep.folder / f"{row.name}-001"
        try:
            result, folder = train(plan, before if any(before.glob("checkpoints/*")) else None)
        except DivergedError as error:
            row.folder, row.error = str(before), f"diverged: {error}"
            say(f"diverged: {error}")
        except (Interrupted, KeyboardInterrupt):
            say(f"resume the sweep with: finetune run --resume {sweep.folder}")
            raise
        else:
            row.folder, row.result = str(folder), dict(result)
        sweep.write()


RATES = ("lr", "weight_decay", "eps")


def draw_chart(sweep: Sweep) -> str | None:
    """Draw the metric over the first numeric key as SVG; returns None without such a key or without results.

    Each combination of the other keys is a line of its own.
    """
    lines, key = collect_points(sweep)
    best = sweep.find_best()
    if key is None or best is None or not lines:
        return None
    metric = f"validation {sweep.metric}"
    score = sweep.score(best)
    mark = (float(best.values[key]), score) if score is not None else None
    others = ", ".join(name for name in sweep.keys if name != key)
    return chart.draw_svg(
        lines, title=f"{metric} by {key}", x=key, y=metric, mark=mark, names=others, rate=is_rate(key)
    )


def is_rate(key: str) -> bool:
    """Return whether the values of a key are best compared by ratio, as learning rates are."""
    name = key.rpartition(".")[2]
    return name in RATES or name.endswith(("_lr", "learning_rate"))


def collect_points(sweep: Sweep) -> tuple[dict[str, list[Point]], str | None]:
    """Return the lines of the chart, by the values of all other keys, and the key on the horizontal axis."""
    key = next((name for name in sweep.keys if all(is_number(row.values[name]) for row in sweep.rows)), None)
    lines: dict[str, list[Point]] = {}
    for row in sweep.rows:
        score = sweep.score(row)
        if key is not None and score is not None:
            rest = ", ".join(format_value(value) for name, value in row.values.items() if name != key)
            lines.setdefault(rest, []).append((float(row.values[key]), score))
    return {name: sorted(line) for name, line in lines.items()}, key


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
