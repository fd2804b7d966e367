"""What a finished run has to warn of: that it is no better than guessing, than its start, or not done yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.model.metrics import better

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from finetune.training.session import Session

LINES = 4  # epochs at least, of which the last quarter shows whether the loss still falls
SETTLED = 0.01  # a training loss as low as this has nowhere to fall
FALLING = 0.05  # of the loss: a fall this large over the last quarter of the epochs is not the end


def warnings(session: Session) -> Iterator[str]:
    """Yield the warnings of a run that is finished, each with what to do."""
    run = session.run
    line = kept_line(run.history, run.best.epoch if run.best else run.epoch)
    yield from guessing(line, session.data.train.labels, session.data.classes)
    yield from below_fitted(run.history, session.recipe.evaluate.metric)
    if run.stop_reason is None:
        yield from unsettled(run.history)


def kept_line(history: Sequence[Mapping[str, Any]], epoch: int) -> Mapping[str, Any]:
    """Return the line of the epoch whose weights are kept, the last one where it has none."""
    return next((line for line in history if line["epoch"] == epoch), history[-1])


def guessing(line: Mapping[str, Any], labels: np.ndarray[Any, Any], classes: Sequence[str]) -> Iterator[str]:
    """Warn of an accuracy that the commonest class alone has."""
    accuracy, counts = line.get("val_accuracy"), np.bincount(labels, minlength=len(classes))
    share, name = float(counts.max() / counts.sum()), classes[int(counts.argmax())]
    if accuracy is not None and accuracy <= share:
        text = f"the accuracy of {accuracy:.3f} is no better than always answering '{name}' ({share:.3f})"
        yield f"{text}; look at the labels, take more images, or train more stages"


def below_fitted(history: Sequence[Mapping[str, Any]], metric: str) -> Iterator[str]:
    """Warn where no epoch is better than the fitted head."""
    key = f"val_{metric}"
    first = history[0]
    trained = [line[key] for line in history[1:] if key in line]
    if first["epoch"] != 0 or key not in first or not trained:
        return
    if not any(better(metric, value, first[key]) for value in trained):
        best = min(trained) if metric == "loss" else max(trained)
        text = f"training did not improve on the fitted head: {key} {best:.4f} against {first[key]:.4f}"
        yield f"{text}, which is kept; lower optimizer.lr, train fewer stages, or set train.epochs=0"


def unsettled(history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Warn where the loss still falls clearly when training ends."""
    losses = [line["train_loss"] for line in history if line["epoch"]]
    if len(losses) < LINES:
        return
    quarter = max(1, len(losses) // 4)
    before, now = float(np.mean(losses[-2 * quarter : -quarter])), float(np.mean(losses[-quarter:]))
    judged = [line["val_loss"] for line in history if line["epoch"] and "val_loss" in line]
    falls = len(judged) < LINES or judged[-1] <= min(judged)
    if now > SETTLED and (before - now) / before > FALLING and falls:
        text = f"training ended before the loss had settled: it fell from {before:.3g} to {now:.3g} in the last epochs"
        yield f"{text}; raise train.epochs or optimizer.lr"
