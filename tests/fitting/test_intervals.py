"""Intervals and scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from finetune.fitting.intervals import bootstrap_macro_f1, score, wilson


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (7, 7), (1, 2), (747, 816), (99_000, 100_000)])
def test_wilson_equals_scipy(hits: int, count: int) -> None:
    wanted = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson(hits, count) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_nothing_counted_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_scores_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 4)).astype(np.float32), np.arange(50) % 4
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = score(logits, labels, 4)
    assert found["loss"] == pytest.approx(log_loss(labels, shares), rel=1e-5)
    assert found["accuracy"] == accuracy_score(labels, logits.argmax(axis=1))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, logits.argmax(axis=1), average="macro"))


def test_the_loss_of_large_logits_is_finite() -> None:
    assert score(np.array([[1e30, -1e30]], np.float32), np.array([0]), 2)["loss"] == 0.0


def test_interval_of_macro_f1_holds_the_true_value_mostly() -> None:
    """Classes are right in 80 %, 60 % and 40 % of draws; the true macro-F1 follows from these shares."""
    shares = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.3, 0.3, 0.4]])
    true = f1_from(shares)
    held = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(3), 60)
        predicted = (rng.random(180)[:, None] > shares.cumsum(axis=1)[labels]).sum(axis=1)
        low, high = bootstrap_macro_f1(labels, predicted, 3, 0)
        held += low <= true <= high
        assert high - low < 0.25
    assert held >= 34


def f1_from(shares: np.ndarray) -> float:
    hits = np.diag(shares)
    return float((2 * hits / (shares.sum(axis=0) + shares.sum(axis=1))).mean())


def test_classes_that_no_image_has_do_not_count() -> None:
    labels = np.array([0, 0, 1, 1])
    assert bootstrap_macro_f1(labels, labels, 5, 0) == (1.0, 1.0)
