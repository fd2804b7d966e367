"""Intervals of metrics, and comparisons of two models on the same images."""

from __future__ import annotations

from math import exp, lgamma, log, sqrt
from typing import TYPE_CHECKING

import numpy as np

from finetune.fitting.scores import REPLICATES, compute_weighted_macro_f1, compute_wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

LEVEL = (0.025, 0.975)


def estimate_macro_f1_interval(labels: Rows, predicted: Rows, classes: int, worth: float = 1.0) -> tuple[float, float]:
    """Return the 95 % interval of the macro-F1 from bootstrap samples of the images, which are always the same.

    ``worth`` is the size of a sample as a share of the images, below 1 if they are not independent.
    """
    rng = np.random.default_rng(0)
    size = max(1, round(worth * len(labels)))
    draws = (rng.integers(0, len(labels), size) for _ in range(REPLICATES))
    counts = (np.bincount(drawn, minlength=len(labels)).astype(np.float64) for drawn in draws)
    found = [compute_weighted_macro_f1(labels, predicted, classes, each) for each in counts]
    low, high = np.quantile(found, LEVEL)
    return float(low), float(high)


def compare_hits(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, float | int]:
    """Compare which images two models have right: McNemar's exact test, and the difference in accuracy.

    ``only_first`` and ``only_second`` count the images that only one of them has right; ``p_value`` is that of the
    hypothesis that both are equally good. The 95 % interval of the difference, second minus first, is Newcombe's
    (1998, method 10) for paired shares.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    low, high = estimate_paired_difference(int((first & second).sum()), only_second, only_first, len(first))
    return {
        "only_first": only_first,
        "only_second": only_second,
        "difference": (only_second - only_first) / len(first),
        "low": low,
        "high": high,
        "p_value": compute_sign_test(only_first, only_second),
    }


def compute_sign_test(first: int, second: int) -> float:
    """Return the two-sided p-value of the exact binomial test that both counts are equally likely."""
    total = first + second
    whole = lgamma(total + 1) - total * log(2)
    terms = (whole - lgamma(k + 1) - lgamma(total - k + 1) for k in range(min(first, second) + 1))
    return min(1.0, 2 * sum(exp(each) for each in terms))


def estimate_paired_difference(both: int, only_second: int, only_first: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy of the second model minus that of the first."""
    neither = count - both - only_second - only_first
    second, first = (both + only_second) / count, (both + only_first) / count
    low_second, high_second = compute_wilson(both + only_second, count)
    low_first, high_first = compute_wilson(both + only_first, count)
    product = (both + only_second) * (both + only_first) * (count - both - only_second) * (count - both - only_first)
    phi = (both * neither - only_second * only_first) / sqrt(product) if product else 0.0
    down = _combine(second - low_second, high_first - first, phi)
    up = _combine(high_second - second, first - low_first, phi)
    return second - first - down, second - first + up


def _combine(one: float, other: float, phi: float) -> float:
    return sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def adjust_p_values(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's method (1979)."""
    order = np.argsort(values, kind="stable")
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order.tolist()):
        highest = max(highest, min(1.0, values[place] * (len(values) - rank)))
        adjusted[place] = highest
    return adjusted
