"""Intervals and comparisons, against formulas of SciPy and the literature."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from finetune.confidence.intervals import (
    adjust_p_values,
    compare_hits,
    compute_sign_test,
    estimate_macro_f1_interval,
    estimate_paired_difference,
)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (1, 9), (20, 50), (0, 7), (400, 300)])
def test_the_sign_test_is_that_of_scipy(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert compute_sign_test(first, second) == pytest.approx(expected, abs=1e-9)


def test_the_paired_difference_of_newcombe() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table II, examples (a) and (e) for method 10.
    assert estimate_paired_difference(36, 12, 2, 50) == pytest.approx((0.0569, 0.3404), abs=2e-3)
    assert estimate_paired_difference(54, 0, 0, 54) == pytest.approx((-0.0664, 0.0664), abs=2e-3)


def test_the_interval_covers_the_true_difference() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        hard = rng.random(200)
        first, second = hard + rng.normal(0, 0.2, 200) < 0.8, hard + rng.normal(0, 0.2, 200) < 0.85
        found = compare_hits(first, second)
        covered += found["low"] <= 0.0465 <= found["high"]
    assert covered >= 270


def test_counts_and_difference() -> None:
    first, second = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 1, 1], bool)
    found = compare_hits(first, second)
    assert (found["only_first"], found["only_second"], found["difference"]) == (1, 2, pytest.approx(0.2))
    assert found["low"] < 0.2 < found["high"]


def test_holm_adjusts_in_order() -> None:
    assert adjust_p_values([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert adjust_p_values([0.6, 0.9]) == [1.0, 1.0]
    assert adjust_p_values([]) == []


def test_the_interval_of_macro_f1_is_wider_for_fewer_images() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 800)
    predicted = np.where(rng.random(800) < 0.8, labels, rng.integers(0, 4, 800))
    wide, narrow = (np.diff(estimate_macro_f1_interval(labels[:n], predicted[:n], 4))[0] for n in (80, 800))
    assert 2 < wide / narrow < 5
    assert estimate_macro_f1_interval(labels, labels, 4) == (1.0, 1.0)
