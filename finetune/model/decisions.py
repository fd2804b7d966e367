"""Decisions about predictions: whether an image is of no known class, and the smallest set of labels to trust."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.confidence.reference import Reference
from finetune.errors import UsageError, WeightsError
from finetune.weights.formats import tensorfile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float32]


NAME = "reference.safetensors"


def write_reference(folder: Path, reference: Reference) -> None:
    """Write the scores that thresholds follow from into a model folder."""
    tensorfile.write_tensors(folder / NAME, reference.to_arrays(), {})


def read_reference(folder: Path | None) -> Reference:
    """Read the scores of a model folder; raises ``UsageError`` if the model has none."""
    path = None if folder is None else folder / NAME
    if path is None or not os.path.isfile(path):
        why = "it is pretrained only, its run had too few images, or it is from an earlier release"
        raise UsageError(f"this model has no reference images: {why}; train it again, with more images")
    try:
        return Reference.from_arrays(tensorfile.read_tensors(path).tensors)
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} is damaged ({error}); copy the model folder again") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """Thresholds for predictions; None for a decision that was not asked for.

    ``threshold`` is the least score of an image of a known class, ``least`` the least probability of a label in a set.
    """

    reference: Reference | None = None
    threshold: float | None = None
    least: float | None = None

    def decide(self, rows: Array, features: Array | None, classes: Sequence[str]) -> list[dict[str, Any]]:
        """Return the additional fields of each ``Prediction``: probabilities (N, K), features (N, D) or None."""
        found: list[dict[str, Any]] = [{} for _ in rows]
        if self.threshold is not None and self.reference is not None and features is not None:
            scores = self.reference.score_known(rows.max(axis=1), features)
            for each, score in zip(found, scores.tolist(), strict=True):
                each |= {"unknown": score < self.threshold, "known_score": score}
        if self.least is not None:
            for each, row in zip(found, rows, strict=True):
                order = np.argsort(-row, kind="stable")
                each["labels"] = tuple(classes[i] for i in order if row[i] >= self.least)
        return found


def make_decisions(reference: Reference, unknown: float | None, coverage: float | None) -> Decisions:
    """Return the decisions for a rate of false alarms and a coverage; raises ``UsageError`` for impossible ones."""
    return Decisions(
        reference=reference,
        threshold=None if unknown is None else reference.find_threshold(unknown),
        least=None if coverage is None else reference.find_least_probability(coverage),
    )
