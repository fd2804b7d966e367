"""What a notebook shows of runs and predictions: plain HTML, all text escaped, no script and no style sheet."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from finetune.display import epochtable
from finetune.display.summary import outcome, shown, summary
from finetune.display.terminal import printable
from finetune.recipe.masking import mask_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from finetune.run import Run

EPOCHS = 20  # rows of a run's table
PHOTOS = 50  # rows of a table of predictions
CLASSES = 10  # names in one line
WIDE = 200  # characters that fit side by side: as many columns as there are


def text(value: object) -> str:
    """Return any text as HTML that shows it."""
    return escape(printable(str(value)))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], strong: Sequence[bool] = ()) -> str:
    """Return a table of texts; the rows that ``strong`` marks are bold."""
    head = "".join(f"<th>{text(title)}</th>" for title in titles)
    lines = [f"<thead><tr>{head}</tr></thead>"] if titles else []
    for number, row in enumerate(rows):
        tag = "th" if number < len(strong) and strong[number] else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{text(cell)}</{tag}>" for cell in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and values as two columns."""
    lines = (f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in rows)
    return f"<table>{''.join(lines)}</table>"


def more(count: int, what: str) -> str:
    """Return a line that says how much is not shown, if any."""
    return f"<p>{count:,} more {what}{'s' * (count > 1)}</p>" if count > 0 else ""


def epochs(run: Run, lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the last epochs as a table, the best in bold."""
    if not lines:
        return ""
    columns = epochtable.columns(WIDE, run.recipe.evaluate.metric)
    shown = [dict(line) for line in lines[-EPOCHS:]]
    rows = [[column.value(line, run) for column in columns] for line in shown]
    best = [epochtable.best(line, run) for line in shown]
    earlier = more(len(lines) - len(shown), "epoch").replace("more", "earlier")
    return earlier + table([column.title for column in columns], rows, best)


def run(run: Run) -> str:
    """Return a run: what it is, its epochs, and what it came to or where it stands."""
    name = f"<p><b>{text(run.recipe.name)}</b>, {text(state(run))}</p>"
    rows = [pair for pair in summary(run) if pair[0] != "run"]
    rows += outcome(run.result, run.folder) if run.result is not None else [("run", shown(run.folder))]
    return name + pairs(rows) + epochs(run, run.history)


def interrupted_finetuner(interrupted: Run) -> str:
    """Return a finetuner whose run was interrupted."""
    return f"<p><b>Finetuner</b>, interrupted</p>{run(interrupted)}"


def new_finetuner(sections: Mapping[str, Any]) -> str:
    """Return a finetuner that is not fitted: the sections of its recipe."""
    rows = ((name, str(mask_value(name, value))) for name, value in sections.items())
    return f"<p><b>Finetuner</b>, not fitted</p>{pairs(rows)}"


def fitted_finetuner(about: Mapping[str, Any], folder: Path | None) -> str:
    """Return what was fitted and how well, from a model's ``model.json`` and its folder."""
    rows = [("network", about["backbone"]["use"]), ("classes", classes(about["classes"]))]
    rows += [(name.replace("_", " "), f"{value:.4f}") for name, value in about["metrics"].items()]
    return f"<p><b>Finetuner</b>, fitted</p>{pairs([*rows, ('model', str(folder))])}"


def classes(names: Sequence[str]) -> str:
    """Return how many classes there are, and the first of them."""
    first = ", ".join(names[:CLASSES])
    return f"{len(names):,}: {first}{', …' if len(names) > CLASSES else ''}"


def state(run: Run) -> str:
    """Return in words where a run stands."""
    if run.result is not None:
        return "finished"
    if run.epoch:
        return f"epoch {run.epoch} of {run.recipe.train.length}"
    return "the head is fitted" if run.history else "not started"


def prediction(path: str | Path, top: Sequence[tuple[str, float]]) -> str:
    """Return the likeliest classes of one image, with their probabilities."""
    rows = [(label, f"{probability:.1%}") for label, probability in top]
    return f"<p>{text(str(path))}</p>" + table(("class", "probability"), rows, [True])


def predictions(found: Sequence[tuple[str | Path, Sequence[tuple[str, float]]]]) -> str:
    """Return a row for each image and its likeliest classes: the first, and the next one."""
    rows = []
    for path, top in found[:PHOTOS]:
        label, probability = top[0]
        then = [f"{label} ({probability:.1%})" for label, probability in top[1:2]]
        rows.append((str(path), label, f"{probability:.1%}", *(then or ["-"])))
    titles = ("photo", "class", "probability", "or else")
    return table(titles, rows) + more(len(found) - len(rows), "prediction")
