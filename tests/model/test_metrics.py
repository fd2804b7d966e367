"""Metrics, against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, top_k_accuracy_score

from finetune.model import metrics
from finetune.model.metrics import is_better


def judged(probabilities: np.ndarray, labels: np.ndarray, *, cuts: tuple[int, ...] = ()) -> dict[str, float]:
    every = [np.split(each, cuts) for each in (np.arange(len(labels)), probabilities.astype(np.float32), labels)]
    scored = np.concatenate([metrics.score_images(*each) for each in zip(*every, strict=True)])
    return metrics.compute_metrics(scored, metrics.count_pairs(scored, labels, probabilities.shape[1]))


@pytest.mark.parametrize("classes", [2, 3, 7, 12])
def test_metrics_equal_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    rows = rng.dirichlet(np.ones(classes), 200).astype(np.float32)
    labels = rng.integers(0, classes, 200)
    found = judged(rows, labels, cuts=(1, 50, 199))
    everything = list(range(classes))
    assert found["accuracy"] == accuracy_score(labels, rows.argmax(1))
    exact = rows.astype(np.float64)
    exact /= exact.sum(1, keepdims=True)
    assert found["loss"] == pytest.approx(log_loss(labels, exact, labels=everything), rel=1e-5)
    assert found["macro_f1"] == pytest.approx(f1_score(labels, rows.argmax(1), average="macro"))
    top5 = top_k_accuracy_score(labels, rows, k=5, labels=everything) if classes > 5 else None
    assert found.get("top5") == top5, "left out where it is always 1"


def test_macro_f1_leaves_out_classes_neither_seen_nor_predicted() -> None:
    rows = np.eye(4, dtype=np.float32)[[0, 1, 1]]
    labels = np.array([0, 1, 0])
    assert judged(rows, labels)["macro_f1"] == pytest.approx(f1_score(labels, [0, 1, 1], average="macro"))


def test_ties_do_not_count_as_top5_for_later_classes() -> None:
    rows = np.full((10, 10), 0.1, np.float32)
    assert judged(rows, np.arange(10))["top5"] == 0.5


def test_nan_makes_the_loss_nan() -> None:
    rows = np.full((1, 2), np.nan, np.float32)
    assert math.isnan(judged(rows, np.array([0]))["loss"])


def test_better_knows_the_direction_and_never_takes_nan() -> None:
    assert is_better("accuracy", 0.6, 0.5)
    assert not is_better("accuracy", 0.5, 0.5)
    assert is_better("loss", 0.4, 0.5)
    assert not is_better("loss", math.nan, None)
    assert is_better("loss", 9.0, None)
