"""Inputs and results of fitting a head."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Rows = NDArray[np.int64]
    Flags = NDArray[np.bool_]

NAMED = 5  # rows listed in an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Features to fit a head to, and the rows that score it.

    Attributes:
        features: One row for each view of an image, float32 or float16 (M, D); may be memory-mapped.
        labels: int64 (M,).
        folds: The fold of each row's image, int64 (M,).
        plain: False for rows of augmented views, bool (M,). These train in the same folds as their image, and are
            never scored.
    """

    features: Floats
    labels: Rows
    folds: Rows
    plain: Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Class weights to try, float32 (K,); None gives all images the same weight."""

    name: str
    class_weights: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A strength that was tried, with its out-of-fold scores; ``factor`` calibrates its logits."""

    strength: float
    choice: str
    log_loss: float
    accuracy: float
    macro_f1: float
    factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A fitted head for raw features.

    Attributes:
        weight: float32 (K, D).
        bias: float32 (K,).
        strength: The chosen strength of the penalty.
        choice: The name of the chosen class weights.
        loss: The mean training loss, without the penalty.
        logits: Out-of-fold logits of the plain rows, in order, float32 (N, K); NaN where ``judged`` is False.
        judged: The plain rows that have out-of-fold logits, bool (N,); none if no choice was possible.
        path: The steps that were tried, in order.
        macro_f1: The out-of-fold macro-F1 of each choice, by name; empty if no choice was possible.
        macro_f1_error: The standard error of the deciding difference in macro-F1; None if the loss decided.
        passes: The total number of passes over the training rows; with many rows, some passes use only a part of them.
    """

    weight: Floats
    bias: Floats
    strength: float
    choice: str
    loss: float
    logits: Floats
    judged: Flags
    path: tuple[Step, ...]
    passes: float
    macro_f1: Mapping[str, float] = field(default_factory=dict)
    macro_f1_error: float | None = None


def check_data(data: Data, classes: int) -> None:
    """Raise ``ValueError`` for arrays that do not match, and ``NotFiniteError`` for NaN or infinity."""
    rows = len(data.features)
    if not rows == len(data.labels) == len(data.folds) == len(data.plain):
        raise ValueError("features, labels, folds and plain must have the same number of rows")
    if not rows:
        raise ValueError("features: no rows to fit to")
    if data.labels.min() < 0 or data.labels.max() >= classes:
        raise ValueError(f"labels: must be between 0 and {classes - 1}")
    check_finite(data.features)


def check_finite(features: Floats) -> None:
    """Raise ``NotFiniteError`` for rows with NaN or infinity."""
    bad: list[int] = []
    for start in range(0, len(features), 4096):
        finite = np.isfinite(features[start : start + 4096]).all(axis=1)
        bad += (np.flatnonzero(~finite) + start).tolist()
    if bad:
        more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise NotFiniteError(f"features: not finite in rows {', '.join(map(str, bad[:NAMED]))}{more}", bad)


class NotFiniteError(ValueError):
    """Features contain NaN or infinity; ``rows`` are the row numbers."""

    def __init__(self, message: str, rows: list[int]) -> None:
        super().__init__(message)
        self.rows = rows
