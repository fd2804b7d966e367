"""Metrics of a classification, as exact sums over images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HIGHER_IS_BETTER = {"accuracy": True, "top5": True, "macro_f1": True, "loss": False}


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts over a data set: ``confusion[true, predicted]``, top-5 hits, and the sum of losses."""

    classes: int
    images: int = 0
    loss: float = 0.0
    top5: int = 0
    confusion: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((self.classes, self.classes), np.int64)

    def add(self, probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Count a batch: (N, classes) probabilities and (N,) labels, padding left out."""
        rows = np.arange(len(labels))
        own = probabilities[rows, labels]
        # Ties go to the class that stands first, here as in the predicted class.
        before = (probabilities > own[:, None]) | (
            (probabilities == own[:, None]) & (np.arange(self.classes) < labels[:, None])
        )
        self.top5 += int((before.sum(axis=1) < min(5, self.classes)).sum())
        np.add.at(self.confusion, (labels, probabilities.argmax(axis=1)), 1)
        self.loss += float(-np.log(np.maximum(own.astype(np.float64), 1e-38)).sum())
        if not np.isfinite(probabilities).all():
            self.loss = float("nan")
        self.images += len(labels)

    def metrics(self) -> dict[str, float]:
        """Return mean loss, accuracy, top5 (of as many classes as there are, at most 5) and macro_f1."""
        return {
            "loss": self.loss / self.images,
            "accuracy": float(np.trace(self.confusion)) / self.images,
            "top5": self.top5 / self.images,
            "macro_f1": macro_f1(self.confusion),
        }


def macro_f1(confusion: NDArray[np.int64]) -> float:
    """Return the mean F1 over the classes that were seen or predicted."""
    hits = np.diag(confusion).astype(np.float64)
    sums = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float((2.0 * hits[sums > 0] / sums[sums > 0]).mean())


def better(metric: str, value: float, than: float | None) -> bool:
    """Tell whether ``value`` beats ``than``; NaN never does, a tie goes to the earlier."""
    if not np.isfinite(value):
        return False
    if than is None:
        return True
    return value > than if HIGHER_IS_BETTER[metric] else value < than
