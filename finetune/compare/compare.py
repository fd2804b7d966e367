"""Comparison: metrics with intervals, which run is better on the same images, and which images changed sides."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from finetune.compare.runs import OUT_OF_FOLD, Finished, align_images, find_differences
from finetune.confidence.calibration import measure_calibration_error
from finetune.confidence.intervals import adjust_p_values, compare_hits, estimate_macro_f1_interval
from finetune.errors import UsageError
from finetune.fitting.scores import (
    WORTH,
    compare_macro_f1,
    compute_macro_f1,
    compute_wilson,
    count_confusion,
    estimate_interval,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from finetune.model.predictions import Row

    Rows = NDArray[np.int64]

SIGNIFICANT = 0.05
Verdict = Literal["yes", "no", "cannot be told"]


def compare_runs(runs: Sequence[Finished]) -> dict[str, Any]:
    """Compare two or more runs on the same images, and return the result, ready for JSON.

    Raises ``UsageError`` for runs that cannot be compared, with the reason.
    """
    if len(runs) < 2:
        raise UsageError("compare needs at least two runs; name another one")
    split, aligned = align_images(runs)
    places = {name: index for index, name in enumerate(runs[0].classes)}
    labels = np.array([places[row.label] for row in aligned[0]], np.int64)
    predicted = [np.array([places[row.predicted] for row in rows], np.int64) for rows in aligned]
    pairs = [
        describe_pair(runs, one, other, labels, predicted, aligned) for one, other in combinations(range(len(runs)), 2)
    ]
    for pair, adjusted in zip(pairs, adjust_p_values([each["p_value"] for each in pairs]), strict=True):
        pair["adjusted_p_value"] = adjusted
        pair["better"] = judge(pair["difference"], adjusted)
    return {
        "split": split,
        "images": len(labels),
        "runs": [
            describe_run(run, rows, labels, each, len(places), out_of_fold=split == OUT_OF_FOLD)
            for run, rows, each in zip(runs, aligned, predicted, strict=True)
        ],
        "recipe": find_differences(runs),
        "pairs": pairs,
    }


def judge(difference: float, p_value: float) -> Verdict:
    """Return whether the second run of a pair is better than the first."""
    if p_value >= SIGNIFICANT or difference == 0:
        return "cannot be told"
    return "yes" if difference > 0 else "no"


def describe_run(
    run: Finished, rows: Sequence[Row], labels: Rows, predicted: Rows, classes: int, *, out_of_fold: bool
) -> dict[str, Any]:
    """Return the metrics of a run with their 95 % intervals."""
    correct = predicted == labels
    interval = (estimate_interval if out_of_fold else compute_wilson)(int(correct.sum()), len(labels))
    own = np.maximum([row.own_probability for row in rows], 1e-38)
    return {
        "run": str(run.folder),
        "accuracy": float(correct.mean()),
        "accuracy_interval": [*interval],
        "macro_f1": compute_macro_f1(count_confusion(labels, predicted, classes)),
        "macro_f1_interval": [*estimate_macro_f1_interval(labels, predicted, classes, WORTH if out_of_fold else 1.0)],
        "loss": max(0.0, float(-np.log(own).mean())),
        "ece": measure_calibration_error(np.array([row.probability for row in rows], np.float32), correct),
    }


def describe_pair(
    runs: Sequence[Finished],
    one: int,
    other: int,
    labels: Rows,
    predicted: Sequence[Rows],
    aligned: Sequence[Sequence[Row]],
) -> dict[str, Any]:
    """Return how two runs differ, and the images that only one of them has right."""
    first, second = predicted[one] == labels, predicted[other] == labels
    higher, error = compare_macro_f1(labels, predicted[other], predicted[one], len(runs[0].classes))
    return {
        "first": str(runs[one].folder),
        "second": str(runs[other].folder),
        **compare_hits(first, second),
        "macro_f1_difference": higher,
        "macro_f1_standard_error": error,
        "changed": [
            {
                "path": aligned[one][row].path,
                "label": aligned[one][row].label,
                "first": aligned[one][row].predicted,
                "second": aligned[other][row].predicted,
                "better": "second" if second[row] else "first",
            }
            for row in np.flatnonzero(first != second).tolist()
        ],
    }


def describe_verdict(pair: dict[str, Any], images: int) -> str:
    """Return in words whether the second run of a pair is better."""
    points = f"{100 * pair['difference']:+.1f} points ({100 * pair['low']:+.1f} to {100 * pair['high']:+.1f})"
    if pair["better"] == "yes":
        return f"yes: {points}, p = {pair['adjusted_p_value']:.2g}"
    if pair["better"] == "no":
        return f"no, the first one is: {points}, p = {pair['adjusted_p_value']:.2g}"
    return f"cannot be told with {images:,} images: {points}, p = {pair['adjusted_p_value']:.2g}"
