"""Classification metrics, computed from one score per image, so that the order of computation does not matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finetune.fitting.scores import compute_macro_f1, count_confusion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOP = 5  # the number of most likely classes that ``top5`` considers
HIGHER_IS_BETTER = {"accuracy": True, "top5": True, "macro_f1": True, "loss": False}


# One image: its number in the part, the predicted class and its probability, the probability of the true class,
# whether the true class is among the five most likely, and the second most likely class.
SCORE = np.dtype(
    [("index", "i8"), ("predicted", "i8"), ("confidence", "f4"), ("own", "f4"), ("top5", "?"), ("second", "i8")],
)


def score_images(
    indices: NDArray[np.int64], probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> NDArray[np.void]:
    """Return the ``SCORE`` of each image (N,): indices (N,), probabilities (N, classes), labels (N,)."""
    found = np.empty(len(labels), SCORE)
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    # Ties go to the first class, as for the predicted class.
    before = (probabilities > own[:, None]) | ((probabilities == own[:, None]) & (np.arange(classes) < labels[:, None]))
    found["index"], found["top5"] = indices, before.sum(axis=1) < min(TOP, classes)
    found["predicted"], found["confidence"] = probabilities.argmax(axis=1), probabilities.max(axis=1)
    found["own"] = np.where(np.isfinite(probabilities).all(axis=1), own, np.nan)
    found["second"] = np.argsort(-probabilities, axis=1, kind="stable")[:, 1]
    return found


def count_pairs(scored: NDArray[np.void], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return the counts ``[true, predicted]`` of all images of a part."""
    return count_confusion(labels, scored["predicted"], classes)


def compute_metrics(scored: NDArray[np.void], counts: NDArray[np.int64]) -> dict[str, float]:
    """Return mean loss, accuracy, top5 and macro_f1, without metrics that are constant with so few classes."""
    found = {
        "loss": compute_mean_loss(scored["own"]),
        "accuracy": float(np.trace(counts)) / len(scored),
        "top5": float(scored["top5"].mean()),
        "macro_f1": compute_macro_f1(counts),
    }
    return {name: value for name, value in found.items() if name not in list_constant_metrics(len(counts))}


def compute_mean_loss(own: NDArray[np.float32]) -> float:
    """Return the mean cross-entropy, given the probability of each image's true class; never less than 0."""
    loss = float(-np.log(np.maximum(own.astype(np.float64), 1e-38)).mean())
    return 0.0 if loss <= 0.0 else loss  # rounding leaves -0.0, or probabilities just above 1


def list_constant_metrics(classes: int) -> dict[str, float]:
    """Return the metrics that are constant with this number of classes, and their values."""
    return {"top5": 1.0} if classes <= TOP else {}


def is_better(metric: str, value: float, than: float | None, *, by: float = 0.0) -> bool:
    """Return whether a value of a metric is better than another by more than ``by``; NaN never is."""
    if not np.isfinite(value):
        return False
    if than is None:
        return True
    return (value - than if HIGHER_IS_BETTER[metric] else than - value) > by


def choose_best(metric: str, values: Sequence[float]) -> int:
    """Return the index of the best value of a metric, or of the first of several."""
    choose = max if HIGHER_IS_BETTER[metric] else min
    return values.index(choose(values))
