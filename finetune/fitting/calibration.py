"""Temperature of logits (Guo et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finetune.fitting.scores import row_losses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Rows = NDArray[np.int64]

WEAKEST, STRONGEST = -8.0, 4.0  # powers of 2 that logits may be multiplied by
NARROWINGS = 16  # of the span of powers, each by the golden ratio
GOLDEN = (5.0**0.5 - 1.0) / 2.0


def calibrate(logits: Floats, labels: Rows, weights: Doubles | None = None) -> tuple[float, float]:
    """Return the factor for all logits (N, K) with which their mean cross-entropy is least, and that loss.

    ``weights`` (N,) are those of the rows, all the same if not given. Labels count as if one more image of each had
    another one (Platt 1999), so that few images that are all right do not make a head entirely sure. The loss has one
    minimum over the factor, which golden-section search finds to a hundredth.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    total = max(float(weights.sum()), float(np.finfo(np.float64).tiny))
    above_mean = logits[np.arange(len(labels)), labels] - logits.mean(axis=1, dtype=np.float64)
    doubt = float((weights * above_mean).sum()) / (len(labels) + 2.0)

    def loss(power: float) -> float:
        factor = 2.0**power
        sure = float((weights * row_losses(logits * np.float32(factor), labels)).sum())
        return float((sure + doubt * factor) / total)

    low, high = WEAKEST, STRONGEST
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(NARROWINGS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = loss(right)
    return (2.0**left, at_left) if at_left <= at_right else (2.0**right, at_right)
