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


def choose_columns(width: int, metric: str) -> tuple[Column, ...]:
    """Return the columns that fit into ``width`` characters, in order; ``metric`` is the one that selects the model."""
    chosen = list(COLUMNS)
    if metric not in ("accuracy", "loss"):
        chosen.insert(5, Column(metric, max(7, len(metric)), 1, number_formatter(f"val_{metric}")))
    while len(chosen) > 1 and sum(column.width + 1 for column in chosen) + 1 > width:
        chosen.remove(max(chosen, key=lambda column: column.rank))
    return tuple(chosen)


def format_header(shown: tuple[Column, ...]) -> str:
    """Format the line of column titles."""
    return " ".join(column.title.rjust(column.width) for column in shown)


def format_row(shown: tuple[Column, ...], line: Line, run: Run) -> str:
    """Format an epoch as a row; ``*`` marks the best epoch so far."""
    cells = (clip_text(column.value(line, run), column.width).rjust(column.width) for column in shown)
    return " ".join(cells) + ("*" if is_best(line, run) else " ")


def clip_text(text: str, width: int) -> str:
    """Shorten ``text`` to ``width`` characters; ``~`` replaces the rest."""
    return text if len(text) <= width else f"{text[: width - 1]}~"


def format_sentence(line: Line, run: Run) -> str:
    """Format an epoch as one line of plain text."""
    metric = run.recipe.evaluate.metric
    parts = [f"train loss {number_formatter('train_loss')(line, run)}"]
    for name in dict.fromkeys(("loss", "accuracy", metric)):
        if f"val_{name}" in line:
            parts.append(f"val {name} {number_formatter(f'val_{name}')(line, run)}")
    if is_best(line, run):
        parts[-1] += " (best)"
    if line["epoch"] == 0:
        return f"fitted head: {', '.join([*parts, format_clock(line['seconds'])])}"
    parts += [f"lr {format_rate(line, run)}", f"{format_speed(line, run)} images/s", format_clock(line["seconds"])]
    return f"epoch {format_epoch(line, run)}, phase {line['phase']}, {format_stages(line, run)}: {', '.join(parts)}"


def is_best(line: Line, run: Run) -> bool:
    """Return whether this is the best epoch so far."""
    return run.best is not None and run.best.epoch == line["epoch"]


def number_formatter(key: str) -> Callable[[Line, Run], str]:
    """Return a function that formats the cell of a loss or a share, with four decimals."""
    return lambda line, run: MISSING if line.get(key) is None else f"{line[key]:.4f}"


def format_epoch(line: Line, run: Run) -> str:
    """Format the epoch as ``3/12``."""
    return f"{line['epoch']}/{run.recipe.train.length}"


def format_rate(line: Line, run: Run) -> str:
    """Format the learning rate of the head."""
    return f"{line['lr']:.1e}"


def format_speed(line: Line, run: Run) -> str:
    """Format the number of training images per second."""
    value = line["images_per_second"]
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def format_stages(line: Line, run: Run) -> str:
    """Format the names of the stages that train."""
    return abridge_stages(tuple(line["trainable"]), run.stages)


def abridge_stages(trainable: tuple[str, ...], all_stages: tuple[str, ...]) -> str:
    """Return ``all``, ``head``, ``layer3..head`` for consecutive stages, or the names separated by commas."""
    if trainable == all_stages:
        return "all"
    first = all_stages.index(trainable[0])
    if len(trainable) > 1 and all_stages[first : first + len(trainable)] == trainable:
        return f"{trainable[0]}..{trainable[-1]}"
    return ",".join(trainable)


def format_clock(seconds: float) -> str:
    """Format seconds as ``0:05``, ``12:31`` or ``1:02:03``."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


COLUMNS = (
    Column("epoch", 7, 0, format_epoch),
    Column("phase", 5, 7, lambda line, run: str(line["phase"])),
    Column("trains", 12, 6, format_stages),
    Column("train loss", 10, 3, number_formatter("train_loss")),
    Column("val loss", 8, 4, number_formatter("val_loss")),
    Column("val acc", 7, 2, number_formatter("val_accuracy")),
    Column("lr", 7, 8, format_rate),
    Column("img/s", 5, 9, format_speed),
    Column("time", 7, 5, lambda line, run: format_clock(line["seconds"])),
)
