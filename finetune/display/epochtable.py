"""Epoch table: one epoch as a row of columns on a terminal, or as a sentence in log files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from finetune.run import Run

Line = dict[str, Any]
MISSING = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``width`` characters; the columns with the highest ``rank`` are left out first if space is short."""

    title: str
    width: int
    rank: int
    value: Callable[[Line, Run], str]


def columns(width: int, metric: str) -> tuple[Column, ...]:
    """Return the columns that fit into ``width`` characters, in order; ``metric`` is the one that selects the model."""
    chosen = list(COLUMNS)
    if metric not in ("accuracy", "loss"):
        chosen.insert(5, Column(metric, max(7, len(metric)), 1, number(f"val_{metric}")))
    while len(chosen) > 1 and sum(column.width + 1 for column in chosen) + 1 > width:
        chosen.remove(max(chosen, key=lambda column: column.rank))
    return tuple(chosen)


def header(shown: tuple[Column, ...]) -> str:
    """Format the line of column titles."""
    return " ".join(column.title.rjust(column.width) for column in shown)


def row(shown: tuple[Column, ...], line: Line, run: Run) -> str:
    """Format an epoch as a row; ``*`` marks the best epoch so far."""
    cells = (clipped(column.value(line, run), column.width).rjust(column.width) for column in shown)
    return " ".join(cells) + ("*" if best(line, run) else " ")


def clipped(text: str, width: int) -> str:
    """Shorten ``text`` to ``width`` characters; ``~`` replaces the rest."""
    return text if len(text) <= width else f"{text[: width - 1]}~"


def sentence(line: Line, run: Run) -> str:
    """Format an epoch as one line of plain text."""
    metric = run.recipe.evaluate.metric
    parts = [f"train loss {number('train_loss')(line, run)}"]
    for name in dict.fromkeys(("loss", "accuracy", metric)):
        if f"val_{name}" in line:
            parts.append(f"val {name} {number(f'val_{name}')(line, run)}")
    if best(line, run):
        parts[-1] += " (best)"
    if line["epoch"] == 0:
        return f"fitted head: {', '.join([*parts, clock(line['seconds'])])}"
    parts += [f"lr {rate(line, run)}", f"{speed(line, run)} images/s", clock(line["seconds"])]
    return f"epoch {of_all(line, run)}, phase {line['phase']}, {stages(line, run)}: {', '.join(parts)}"


def best(line: Line, run: Run) -> bool:
    """Return whether this is the best epoch so far."""
    return run.best is not None and run.best.epoch == line["epoch"]


def number(key: str) -> Callable[[Line, Run], str]:
    """Return a function that formats the cell of a loss or a share, with four decimals."""
    return lambda line, run: MISSING if line.get(key) is None else f"{line[key]:.4f}"


def of_all(line: Line, run: Run) -> str:
    """Format the epoch as ``3/12``."""
    return f"{line['epoch']}/{run.recipe.train.length}"


def rate(line: Line, run: Run) -> str:
    """Format the learning rate of the head."""
    return f"{line['lr']:.1e}"


def speed(line: Line, run: Run) -> str:
    """Format the number of training images per second."""
    value = line["images_per_second"]
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def stages(line: Line, run: Run) -> str:
    """Format the names of the stages that train."""
    return abridged(tuple(line["trainable"]), run.stages)


def abridged(trainable: tuple[str, ...], all_stages: tuple[str, ...]) -> str:
    """Return ``all``, ``head``, ``layer3..head`` for consecutive stages, or the names separated by commas."""
    if trainable == all_stages:
        return "all"
    first = all_stages.index(trainable[0])
    if len(trainable) > 1 and all_stages[first : first + len(trainable)] == trainable:
        return f"{trainable[0]}..{trainable[-1]}"
    return ",".join(trainable)


def clock(seconds: float) -> str:
    """Format seconds as ``0:05``, ``12:31`` or ``1:02:03``."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


COLUMNS = (
    Column("epoch", 7, 0, of_all),
    Column("phase", 5, 7, lambda line, run: str(line["phase"])),
    Column("trains", 12, 6, stages),
    Column("train loss", 10, 3, number("train_loss")),
    Column("val loss", 8, 4, number("val_loss")),
    Column("val acc", 7, 2, number("val_accuracy")),
    Column("lr", 7, 8, rate),
    Column("img/s", 5, 9, speed),
    Column("time", 7, 5, lambda line, run: clock(line["seconds"])),
)
