"""HTML of runs and predictions for notebooks: all text escaped, no scripts and no style sheets."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from finetune.display import epochtable
from finetune.display.summary import format_path, summarise_result, summarise_run
from finetune.display.terminal import make_printable
from finetune.recipe.masking import mask_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from finetune.run import Run

EPOCHS = 20  # rows in a run's table
PHOTOS = 50  # rows in a table of predictions
CLASSES = 10  # names in one line
WIDE = 200  # characters in a row, enough for all columns


def escape_text(value: object) -> str:
    """Convert any value to text that is safe in HTML."""
    return escape(make_printable(str(value)))


def render_table(titles: Sequence[str], rows: Iterable[Sequence[str]], strong: Sequence[bool] = ()) -> str:
    """Render a table; the rows that ``strong`` marks are bold."""
    head = "".join(f"<th>{escape_text(title)}</th>" for title in titles)
    lines = [f"<thead><tr>{head}</tr></thead>"] if titles else []
    for number, row in enumerate(rows):
        tag = "th" if number < len(strong) and strong[number] else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{escape_text(cell)}</{tag}>" for cell in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def render_pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Render names and values as a table with two columns."""
    lines = (f"<tr><th>{escape_text(name)}</th><td>{escape_text(value)}</td></tr>" for name, value in rows)
    return f"<table>{''.join(lines)}</table>"


def render_more(count: int, what: str) -> str:
    """Render a line with the number of items that are not shown, if there are any."""
    return f"<p>{count:,} more {what}{'s' * (count > 1)}</p>" if count > 0 else ""


def render_epochs(run: Run, lines: Sequence[Mapping[str, Any]]) -> str:
    """Render the last epochs as a table, the best epoch in bold."""
    if not lines:
        return ""
    columns = epochtable.choose_columns(WIDE, run.recipe.evaluate.metric)
    shown = [dict(line) for line in lines[-EPOCHS:]]
    rows = [[column.value(line, run) for column in columns] for line in shown]
    best = [epochtable.is_best(line, run) for line in shown]
    earlier = render_more(len(lines) - len(shown), "epoch").replace("more", "earlier")
    return earlier + render_table([column.title for column in columns], rows, best)


def render_run(run: Run) -> str:
    """Render a run: its settings, its epochs, and its result or progress."""
    name = f"<p><b>{escape_text(run.recipe.name)}</b>, {escape_text(describe_state(run))}</p>"
    rows = [pair for pair in summarise_run(run) if pair[0] != "run"]
    rows += summarise_result(run.result, run.folder) if run.result is not None else [("run", format_path(run.folder))]
    return name + render_pairs(rows) + render_epochs(run, run.history)


def render_interrupted(interrupted: Run) -> str:
    """Render a finetuner whose run was interrupted."""
    return f"<p><b>Finetuner</b>, interrupted</p>{render_run(interrupted)}"


def render_new(sections: Mapping[str, Any]) -> str:
    """Render a finetuner that is not fitted: the sections of its recipe."""
    rows = ((name, str(mask_value(name, value))) for name, value in sections.items())
    return f"<p><b>Finetuner</b>, not fitted</p>{render_pairs(rows)}"


def render_fitted(about: Mapping[str, Any], folder: Path | None) -> str:
    """Render a fitted finetuner: network, classes and metrics from ``model.json``, and the model folder."""
    rows = [("network", about["backbone"]["use"]), ("classes", format_classes(about["classes"]))]
    rows += [(name.replace("_", " "), f"{value:.4f}") for name, value in about["metrics"].items()]
    return f"<p><b>Finetuner</b>, fitted</p>{render_pairs([*rows, ('model', str(folder))])}"


def format_classes(names: Sequence[str]) -> str:
    """Format the number of classes and the names of the first ones."""
    first = ", ".join(names[:CLASSES])
    return f"{len(names):,}: {first}{', …' if len(names) > CLASSES else ''}"


def describe_state(run: Run) -> str:
    """Return the progress of a run in words."""
    if run.result is not None:
        return "finished"
    if run.epoch:
        return f"epoch {run.epoch} of {run.recipe.train.length}"
    return "the head is fitted" if run.history else "not started"


def render_prediction(path: str | Path, top: Sequence[tuple[str, float]]) -> str:
    """Render the most likely classes of one image, with their probabilities."""
    rows = [(label, f"{probability:.1%}") for label, probability in top]
    return f"<p>{escape_text(str(path))}</p>" + render_table(("class", "probability"), rows, [True])


def render_predictions(found: Sequence[tuple[str | Path, Sequence[tuple[str, float]]]]) -> str:
    """Render a row for each image with its two most likely classes."""
    rows = []
    for path, top in found[:PHOTOS]:
        label, probability = top[0]
        then = [f"{label} ({probability:.1%})" for label, probability in top[1:2]]
        rows.append((str(path), label, f"{probability:.1%}", *(then or ["-"])))
    titles = ("photo", "class", "probability", "or else")
    return render_table(titles, rows) + render_more(len(found) - len(rows), "prediction")
