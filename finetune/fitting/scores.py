"""Scores of predictions, from logits or from counts of true and predicted classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Rows = NDArray[np.int64]

REPLICATES = 200


def count_confusion(labels: Rows, predicted: Rows, classes: int) -> Rows:
    """Return the counts ``[true, predicted]``, int64 (classes, classes)."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def macro_f1(confusion: Rows) -> float:
    """Return the mean F1 over the classes that were seen or predicted."""
    hits = np.diag(confusion).astype(np.float64)
    sums = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float((2.0 * hits[sums > 0] / sums[sums > 0]).mean())


def compare_macro_f1(labels: Rows, first: Rows, second: Rows, classes: int) -> tuple[float, float]:
    """Return by how much the macro-F1 of the first predictions (N,) is higher, and the standard error of that.

    The error is the standard deviation over ``REPLICATES`` bootstrap samples of the images, always the same ones.
    """
    rng = np.random.default_rng(0)

    def differ(counts: NDArray[np.float64]) -> float:
        return _weighted_macro_f1(labels, first, classes, counts) - _weighted_macro_f1(labels, second, classes, counts)

    draws = (rng.integers(0, len(labels), len(labels)) for _ in range(REPLICATES))
    samples = [differ(np.bincount(drawn, minlength=len(labels)).astype(np.float64)) for drawn in draws]
    return differ(np.ones(len(labels))), float(np.std(samples))


def _weighted_macro_f1(labels: Rows, predicted: Rows, classes: int, counts: NDArray[np.float64]) -> float:
    """Return the macro-F1 of images of which each counts so many times."""
    right = predicted == labels
    hits = np.bincount(labels[right], weights=counts[right], minlength=classes)
    sums = np.bincount(labels, weights=counts, minlength=classes)
    sums += np.bincount(predicted, weights=counts, minlength=classes)
    return float((2.0 * hits[sums > 0] / sums[sums > 0]).mean())


def score(logits: Floats, labels: Rows, classes: int) -> dict[str, float]:
    """Return the mean cross-entropy, accuracy and macro-F1 of logits (N, classes)."""
    counts = count_confusion(labels, logits.argmax(axis=1), classes)
    return {
        "loss": float(row_losses(logits, labels).mean()),
        "accuracy": float(np.trace(counts)) / len(labels),
        "macro_f1": macro_f1(counts),
    }


def row_losses(logits: Floats, labels: Rows) -> NDArray[np.float64]:
    """Return the cross-entropy of each row with its label, float64 (N,)."""
    above = logits - logits.max(axis=1, keepdims=True)
    sums = np.exp(above).sum(axis=1, dtype=np.float64)
    losses: NDArray[np.float64] = np.log(sums) - above[np.arange(len(labels)), labels]
    return losses
