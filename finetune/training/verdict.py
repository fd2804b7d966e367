"""Warnings at the end of a run: guessing, training without improvement, and training that ended too early."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.model.metrics import choose_best, is_better

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from finetune.training.training_run import TrainingRun

LINES = 4  # the fewest epochs to tell whether the loss still falls
FALLING = 0.05  # the loss still falls if the last quarter of the epochs lowered it by this share
LEAST = 0.01  # and by at least this much, since a loss near 0 is not worth more epochs


def find_warnings(training: TrainingRun) -> Iterator[str]:
    """Yield the warnings of a finished run, each with a remedy."""
    run, data = training.run, training.data
    line = find_kept_line(run.history, run.best.epoch if run.best else run.epoch)
    judged = data.train if data.valid is None else data.valid
    yield from warn_of_guessing(line, np.bincount(judged.labels, minlength=len(data.classes)), data.classes)
    yield from warn_below_fitted(
        run.history, training.recipe.evaluate.metric, restored=training.recipe.evaluate.restore_best
    )
    if training.data.valid is None and run.epoch > 0:
        text = "no images were held back, so the epochs were not compared and the last one is kept"
        yield f"{text}; evaluate it on different images with finetune eval"
    if run.stop_reason is None:
        yield from warn_of_unsettled(run.history)


def find_kept_line(history: Sequence[Mapping[str, Any]], epoch: int) -> Mapping[str, Any]:
    """Return the line of the epoch whose weights are kept, or the last line if it has none."""
    return next((line for line in history if line["epoch"] == epoch), history[-1])


def warn_of_guessing(line: Mapping[str, Any], counts: NDArray[np.int64], classes: Sequence[str]) -> Iterator[str]:
    """Warn if accuracy and macro-F1 are not better than those of always predicting the most common class.

    ``counts`` are the validation images of each class. A network that recognises rare classes may have a lower accuracy
    than that and still be better than guessing.
    """
    accuracy, macro_f1 = line.get("val_accuracy"), line.get("val_macro_f1", 0.0)
    share, name = float(counts.max() / counts.sum()), classes[int(counts.argmax())]
    guessed_f1 = 2 * share / (1 + share) / np.count_nonzero(counts)
    if accuracy is not None and accuracy <= share and macro_f1 <= guessed_f1:
        text = f"the accuracy of {accuracy:.3f} is not better than always predicting '{name}' ({share:.3f})"
        yield f"{text}; check the labels, add more images, or train more stages"


def warn_below_fitted(history: Sequence[Mapping[str, Any]], metric: str, *, restored: bool) -> Iterator[str]:
    """Warn if no epoch is better than the fitted head; ``restored`` tells that the best epoch's weights are kept."""
    key = f"val_{metric}"
    first = history[0]
    trained = [line[key] for line in history[1:] if key in line]
    if first["epoch"] != 0 or key not in first or not trained or (metric != "loss" and first[key] >= 1.0):
        return
    if restored:
        reached, kept = trained[choose_best(metric, trained)], "the fitted head is kept"
    else:
        reached, kept = trained[-1], "the last epoch is kept, since evaluate.restore_best=false"
    if not is_better(metric, reached, first[key]):
        text = f"training did not improve on the fitted head: {key} {reached:.4f}, and {first[key]:.4f} before"
        yield f"{text}; {kept}; lower optimizer.lr, train fewer stages, or set train.epochs=0"


def warn_of_unsettled(history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Warn if the loss, that of the validation images if there are any, still fell clearly when training ended."""
    trained = [line for line in history if line["epoch"]]
    judged = [line["val_loss"] for line in trained if "val_loss" in line]
    losses = [line["train_loss"] for line in trained]
    shown = judged if len(judged) >= LINES else losses
    if not is_falling(losses) or not is_falling(shown) or shown[-1] > min(shown):
        return
    before, now = shown[-1 - len(shown) // 4], shown[-1]
    text = f"training ended before the loss had settled: it fell from {before:.3g} to {now:.3g} in the last epochs"
    yield f"{text}; raise train.epochs or optimizer.lr"


def is_falling(losses: Sequence[float]) -> bool:
    """Return whether the mean of the last quarter is clearly below that of the quarter before it."""
    if len(losses) < LINES:
        return False
    quarter = len(losses) // 4
    before, now = float(np.mean(losses[-2 * quarter : -quarter])), float(np.mean(losses[-quarter:]))
    return before - now > max(LEAST, FALLING * before)
