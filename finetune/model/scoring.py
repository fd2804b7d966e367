"""Report of an evaluation: metrics with intervals, classes, confusion matrix, calibration and mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.confidence.calibration import list_bins, looks_calibrated, measure_calibration_error
from finetune.confidence.intervals import estimate_macro_f1_interval
from finetune.fitting.scores import WORTH, compute_wilson, estimate_interval
from finetune.model import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

ERROR_COLUMNS = ("path", "label", "predicted", "probability", "own_probability", "second")


def describe_scores(
    scored: NDArray[np.void], labels: NDArray[np.int64], classes: Sequence[str], *, out_of_fold: bool = False
) -> dict[str, Any]:
    """Return everything about an evaluation except its images, ready for JSON.

    ``confusion[true][predicted]`` counts images; intervals are of 95 %. Out-of-fold images count for less, since folds
    share training images.
    """
    confusion = metrics.count_pairs(scored, labels, len(classes))
    correct = scored["predicted"] == labels
    hits = int(correct.sum())
    low, high = (estimate_interval if out_of_fold else compute_wilson)(hits, len(labels))
    f1_low, f1_high = estimate_macro_f1_interval(
        labels, scored["predicted"], len(classes), WORTH if out_of_fold else 1.0
    )
    return {
        **metrics.compute_metrics(scored, confusion),
        "accuracy_interval": [low, high],
        "macro_f1_interval": [f1_low, f1_high],
        "ece": measure_calibration_error(scored["confidence"], correct),
        "looks_calibrated": looks_calibrated(scored["confidence"], correct),
        "reliability": list_bins(scored["confidence"], correct),
        "per_class": score_classes(confusion, classes),
        "confusion": confusion.tolist(),
    }


def score_classes(confusion: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return images, recall with its interval, precision and F1 of each class; None for a division by zero."""
    rows, columns, hits = (each.tolist() for each in (confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)))
    return [
        {
            "class": name,
            "images": rows[i],
            "recall": hits[i] / rows[i] if rows[i] else None,
            "recall_interval": [*compute_wilson(hits[i], rows[i])] if rows[i] else None,
            "precision": hits[i] / columns[i] if columns[i] else None,
            "f1": 2 * hits[i] / (rows[i] + columns[i]) if rows[i] + columns[i] else None,
        }
        for i, name in enumerate(classes)
    ]


def list_errors(
    names: Iterable[str], scored: NDArray[np.void], labels: NDArray[np.int64], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the images with a wrong prediction, the most certain mistakes first, by the columns of a table."""
    named = list(names)
    wrong = np.flatnonzero(scored["predicted"] != labels)
    order = wrong[np.argsort(-scored["confidence"][wrong], kind="stable")]
    return [describe_image(named[row], scored[row], int(labels[row]), classes) for row in order.tolist()]


def describe_image(name: str, score: np.void, label: int, classes: Sequence[str]) -> dict[str, Any]:
    """Return an image with its prediction; ``second`` is empty if it is unknown."""
    return {
        "path": name,
        "label": classes[label],
        "predicted": classes[score["predicted"]],
        "probability": float(score["confidence"]),
        "own_probability": float(score["own"]),
        "second": classes[score["second"]] if score["second"] >= 0 else "",
    }
