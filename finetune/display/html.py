"""HTML of runs and predictions for notebooks: all text escaped, no scripts and no style sheets."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from finetune.display import epochtable
from finetune.display.summary import outcome, shown, summary
from finetune.display.terminal import printable
from finetune.recipe.masking import hidden

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from finetune.run import Run

EPOCHS = 20  # rows in a run's table
PHOTOS = 50  # rows in a table of predictions
CLASSES = 10  # names in one line
WIDE = 200  # characters in a row, enough for all columns


def text(value: object) -> str:
    """Convert any value to text that is safe in HTML."""
    return escape(printable(str(value)))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], strong: Sequence[bool] = ()) -> str:
    """Render a table; the rows that ``strong`` marks are bold."""
    head = "".join(f"<th>{text(title)}</th>" for title in titles)
    lines = [f"<thead><tr>{head}</tr></thead>"] if titles else []
    for number, row in enumerate(rows):
        tag = "th" if number < len(strong) and strong[number] else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{text(cell)}</{tag}>" for cell in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Render names and values as a table with two columns."""
    lines = (f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in rows)
    return f"<table>{''.join(lines)}</table>"


def more(count: int, what: str) -> str:
    """Render a line with the number of items that are not shown, if there are any."""
    return f"<p>{count:,} more {what}{'s' * (count > 1)}</p>" if count > 0 else ""


def epochs(run: Run, lines: Sequence[Mapping[str, Any]]) -> str:
    """Render the last epochs as a table, the best epoch in bold."""
    if not lines:
        return ""
    columns = epochtable.columns(WIDE, run.recipe.evaluate.metric)
    shown = [dict(line) for line in lines[-EPOCHS:]]
    rows = [[column.value(line, run) for column in columns] for line in shown]
    best = [epochtable.best(line, run) for line in shown]
    earlier = more(len(lines) - len(shown), "epoch").replace("more", "earlier")
    return earlier + table([column.title for column in columns], rows, best)


def run(run: Run) -> str:
    """Render a run: its settings, its epochs, and its result or progress."""
    name = f"<p><b>{text(run.recipe.name)}</b>, {text(state(run))}</p>"
    rows = [pair for pair in summary(run) if pair[0] != "run"]
    rows += outcome(run.result, run.folder) if run.result is not None else [("run", shown(run.folder))]
    return name + pairs(rows) + epochs(run, run.history)


def interrupted_finetuner(interrupted: Run) -> str:
    """Render a finetuner whose run was interrupted."""
    return f"<p><b>Finetuner</b>, interrupted</p>{run(interrupted)}"


def new_finetuner(sections: Mapping[str, Any]) -> str:
    """Render a finetuner that is not fitted: the sections of its recipe."""
    rows = ((name, str(hidden(name, value))) for name, value in sections.items())
    return f"<p><b>Finetuner</b>, not fitted</p>{pairs(rows)}"


def fitted_finetuner(about: Mapping[str, Any], folder: Path | None) -> str:
    """Render a fitted finetuner: network, classes and metrics from ``model.json``, and the model folder."""
    rows = [("network", about["backbone"]["use"]), ("classes", classes(about["classes"]))]
    rows += [(name.replace("_", " "), f"{value:.4f}") for name, value in about["metrics"].items()]
    return f"<p><b>Finetuner</b>, fitted</p>{pairs([*rows, ('model', str(folder))])}"


def classes(names: Sequence[str]) -> str:
    """Format the number of classes and the names of the first ones."""
    first = ", ".join(names[:CLASSES])
    return f"{len(names):,}: {first}{', …' if len(names) > CLASSES else ''}"


def state(run: Run) -> str:
    """Return the progress of a run in words."""
    if run.result is not None:
        return "finished"
    if run.epoch:
        return f"epoch {run.epoch} of {run.recipe.train.length}"
    return "the head is fitted" if run.history else "not started"


def prediction(path: str | Path, top: Sequence[tuple[str, float]]) -> str:
    """Render the most likely classes of one image, with their probabilities."""
    rows = [(label, f"{probability:.1%}") for label, probability in top]
    return f"<p>{text(str(path))}</p>" + table(("class", "probability"), rows, [True])


def predictions(found: Sequence[tuple[str | Path, Sequence[tuple[str, float]]]]) -> str:
    """Render a row for each image with its two most likely classes."""
    rows = []
    for path, top in found[:PHOTOS]:
        label, probability = top[0]
        then = [f"{label} ({probability:.1%})" for label, probability in top[1:2]]
        rows.append((str(path), label, f"{probability:.1%}", *(then or ["-"])))
    titles = ("photo", "class", "probability", "or else")
    return table(titles, rows) + more(len(found) - len(rows), "prediction")
