"""Calibration: the temperature of a network's logits, and the expected calibration error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finetune.fitting.scores import calibrate_logits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Rows = NDArray[np.int64]

BINS = 15
DRAWS = 200
FEWEST = 20  # images below which a temperature would be mostly noise


def fit_temperature(logits: Floats, labels: Rows) -> float:
    """Return the temperature T for which the softmax of logits (N, K) / T has the least cross-entropy.

    1 with fewer than ``FEWEST`` images. The images must not have been trained on (Guo et al. 2017,
    https://arxiv.org/abs/1706.04599).
    """
    if len(labels) < FEWEST:
        return 1.0
    factor, _ = calibrate_logits(logits, labels)
    return 1.0 / factor


def measure_calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """Return the expected calibration error of the most likely classes.

    That is the mean difference between confidence and accuracy over ``BINS`` bins of equal width, weighted by the
    images in each. Both arguments are (N,). NaN for no images.
    """
    return sum(each["share"] * abs(each["accuracy"] - each["confidence"]) for each in list_bins(confidence, correct))


def looks_calibrated(confidence: Floats, correct: NDArray[np.bool_]) -> bool:
    """Return whether the calibration error is no larger than chance explains, at the 95 % level.

    Few images have a large error even if the confidences are right. Chance is drawn ``DRAWS`` times, always the same.
    """
    rng = np.random.default_rng(0)
    given = np.nan_to_num(confidence.astype(np.float64))
    drawn = [measure_calibration_error(confidence, rng.random(len(given)) < given) for _ in range(DRAWS)]
    return measure_calibration_error(confidence, correct) <= float(np.quantile(drawn, 0.95))


def list_bins(confidence: Floats, correct: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Return the bins of a reliability diagram that have images: share of the images, confidence and accuracy."""
    given = np.nan_to_num(confidence.astype(np.float64))
    places = np.minimum((given * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    sums = np.bincount(places, weights=given, minlength=BINS)
    hits = np.bincount(places, weights=correct.astype(np.float64), minlength=BINS)
    return [
        {
            "share": float(counts[i] / len(given)),
            "images": int(counts[i]),
            "confidence": float(sums[i] / counts[i]),
            "accuracy": float(hits[i] / counts[i]),
        }
        for i in np.flatnonzero(counts).tolist()
    ]
