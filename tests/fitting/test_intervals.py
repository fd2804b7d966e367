"""Intervals and scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from finetune.fitting.scores import compare_macro_f1, compute_wilson, score_logits


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (7, 7), (1, 2), (747, 816), (99_000, 100_000)])
def test_wilson_equals_scipy(hits: int, count: int) -> None:
    wanted = binomtest(hits, count).proportion_ci(method="wilson")
    assert compute_wilson(hits, count) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_nothing_counted_says_nothing() -> None:
    assert compute_wilson(0, 0) == (0.0, 1.0)


def test_scores_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 4)).astype(np.float32), np.arange(50) % 4
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = score_logits(logits, labels, 4)
    assert found["loss"] == pytest.approx(log_loss(labels, shares), rel=1e-5)
    assert found["accuracy"] == accuracy_score(labels, logits.argmax(axis=1))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, logits.argmax(axis=1), average="macro"))


def test_the_loss_of_large_logits_is_finite() -> None:
    assert score_logits(np.array([[1e30, -1e30]], np.float32), np.array([0]), 2)["loss"] == 0.0


def test_macro_f1_of_two_predictions_is_compared_with_its_error() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    good = np.where(rng.random(400) < 0.9, labels, rng.integers(0, 3, 400))
    poor = np.where(rng.random(400) < 0.5, labels, rng.integers(0, 3, 400))
    higher, error = compare_macro_f1(labels, good, poor, 3)
    wanted = f1_score(labels, good, average="macro") - f1_score(labels, poor, average="macro")
    assert higher == pytest.approx(wanted)
    assert 0.015 < error < 0.04  # an image that is right with 0.93 in one and 0.67 in the other, 400 of them: 0.027
    assert compare_macro_f1(labels, good, good, 3) == (0.0, 0.0)
    few = compare_macro_f1(labels[:100], good[:100], poor[:100], 3)[1]
    assert few == pytest.approx(2.0 * error, rel=0.3)
