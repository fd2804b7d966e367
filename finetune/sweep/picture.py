"""One picture of a sweep: what became of the metric as the values changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.display import chart
from finetune.sweep.axes import spelled

if TYPE_CHECKING:
    from finetune.display.chart import Point
    from finetune.sweep.runs import Sweep


RATES = ("lr", "weight_decay", "eps")


def draw(sweep: Sweep) -> str | None:
    """Return a chart as SVG of the metric over the first key that takes numbers; None if there is none, or no result.

    Runs that differ in other keys are lines of their own.
    """
    lines, key = points(sweep)
    best = sweep.best()
    if key is None or best is None or not lines:
        return None
    metric = f"validation {sweep.metric}"
    score = sweep.score(best)
    mark = (float(best.values[key]), score) if score is not None else None
    others = ", ".join(name for name in sweep.keys if name != key)
    return chart.svg(lines, title=f"{metric} by {key}", x=key, y=metric, mark=mark, names=others, rate=is_rate(key))


def is_rate(key: str) -> bool:
    """Return whether values of a key differ by factors, as learning rates do."""
    name = key.rpartition(".")[2]
    return name in RATES or name.endswith(("_lr", "learning_rate"))


def points(sweep: Sweep) -> tuple[dict[str, list[Point]], str | None]:
    """Return the lines of the chart by the values of all other keys, and the key that they are drawn over."""
    key = next((name for name in sweep.keys if all(number(row.values[name]) for row in sweep.rows)), None)
    lines: dict[str, list[Point]] = {}
    for row in sweep.rows:
        score = sweep.score(row)
        if key is not None and score is not None:
            rest = ", ".join(spelled(value) for name, value in row.values.items() if name != key)
            lines.setdefault(rest, []).append((float(row.values[key]), score))
    return {name: sorted(line) for name, line in lines.items()}, key


def number(value: object) -> bool:
    """Tell whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
