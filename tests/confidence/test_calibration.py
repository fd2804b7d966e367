"""Temperature and calibration error."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.confidence.calibration import (
    FEWEST,
    fit_temperature,
    list_bins,
    looks_calibrated,
    measure_calibration_error,
)
from finetune.model.evaluation import softmax


def draw(count: int, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (N, K) float32 whose softmax is the true distribution of the labels, and labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (count, classes)).astype(np.float32)
    labels = np.array([rng.choice(classes, p=row / row.sum()) for row in softmax(logits).astype(np.float64)])
    return logits, labels


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    logits, labels = draw(8000)
    assert fit_temperature(logits * np.float32(scale), labels) == pytest.approx(scale, rel=0.06)


def test_it_lowers_the_calibration_error() -> None:
    logits, labels = draw(4000)
    sharp = logits * np.float32(3)
    temperature = fit_temperature(sharp[:2000], labels[:2000])
    before, after = (softmax(sharp[2000:] / np.float32(t)) for t in (1.0, temperature))
    correct = before.argmax(axis=1) == labels[2000:]
    errors = [measure_calibration_error(each.max(axis=1), correct) for each in (before, after)]
    assert errors[0] > 0.1
    assert errors[1] < 0.03


def test_too_few_images_give_no_temperature() -> None:
    logits, labels = draw(FEWEST)
    assert fit_temperature(logits[:-1] * np.float32(9), labels[:-1]) == 1.0
    assert fit_temperature(logits * np.float32(9), labels) > 1.5


def test_the_error_of_known_numbers() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55], np.float32)
    correct = np.array([1, 1, 1, 0, 1, 0], bool)
    expected = 4 / 6 * abs(0.75 - 0.95) + 2 / 6 * abs(0.5 - 0.55)
    assert measure_calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-6)
    bins = list_bins(confidence, correct)
    assert [each["images"] for each in bins] == [2, 4]
    assert sum(each["share"] for each in bins) == pytest.approx(1.0)


def test_certainty_of_one_and_nan_are_in_a_bin() -> None:
    assert [each["images"] for each in list_bins(np.array([1.0, np.nan], np.float32), np.ones(2, bool))] == [1, 1]


@pytest.mark.parametrize("count", [40, 400, 4000])
def test_right_probabilities_look_calibrated_and_sharp_ones_do_not(count: int) -> None:
    logits, labels = draw(count)
    for scale, expected in ((1.0, True), (3.0, False)):
        rows = softmax(logits * np.float32(scale))
        assert looks_calibrated(rows.max(axis=1), rows.argmax(axis=1) == labels) == expected
