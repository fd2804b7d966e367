"""Charts: what is drawn where."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from finetune.display import chart
from finetune.sweep.runs import is_rate

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("values", "linear", "ticks"),
    [
        ([0.0, 1.0], True, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([0.5, 0.5], True, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([-3.0, 40.0], True, [0, 10, 20, 30, 40]),
        ([1e-5, 1e-1], False, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
        ([16, 64], False, [20, 30, 40, 50, 60]),
    ],
)
def test_ticks(values: list[float], linear: bool, ticks: list[float]) -> None:
    assert chart.Axis(values, linear=linear).choose_ticks() == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([1e-3, 1e-2], [1e-3, 2e-3, 5e-3, 1e-2]),
        ([1e-3, 3e-3], [1e-3, 1.5e-3, 2e-3, 3e-3]),
        ([2e-3, 8e-3], [2e-3, 3e-3, 4e-3, 5e-3, 6e-3, 7e-3, 8e-3]),
        ([1e-4, 1e-2], [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]),
        ([0.0, 1e-4, 1e-1], [0, 1e-4, 1e-3, 1e-2, 1e-1]),
        ([1e-3], [5e-4, 6e-4, 7e-4, 8e-4, 1e-3, 1.5e-3, 2e-3]),
        ([1.1e-3, 1.2e-3], [1.1e-3, 1.2e-3]),
        ([-1.0, 1.0], [-1, -0.5, 0, 0.5, 1]),
        ([0.0], [-0.4, -0.2, 0, 0.2, 0.4]),
    ],
)
def test_ticks_of_a_rate(values: list[float], ticks: list[float]) -> None:
    assert chart.Axis(values, rate=True).choose_ticks() == pytest.approx(ticks)


def test_a_logarithmic_axis_has_equal_steps() -> None:
    axis = chart.Axis([1e-3, 1e-2, 1e-1])
    assert [axis.locate(value) for value in (1e-3, 1e-2, 1e-1)] == pytest.approx([0, 0.5, 1])
    with_zero = chart.Axis([0.0, 1e-3, 1e-2, 1e-1])
    assert [with_zero.locate(value) for value in (0.0, 1e-3, 1e-2, 1e-1)] == pytest.approx([0, 0.12, 0.56, 1])


@pytest.mark.parametrize(
    ("key", "rate"),
    [
        ("optimizer.lr", True),
        ("optimizer.weight_decay", True),
        ("freeze.base_lr", True),
        ("train.batch_size", False),
        ("optimizer.layer_decay", False),
    ],
)
def test_keys_that_are_rates(key: str, rate: bool) -> None:
    assert is_rate(key) is rate


def test_svg() -> None:
    lines = {"16 & 32": [(1e-4, 0.5), (1e-2, 0.9)], "64": [(1e-4, 0.4), (1e-2, 0.7)]}
    drawn = ET.fromstring(
        chart.draw_svg(lines, title="<accuracy>", x="lr", y="accuracy", mark=(1e-2, 0.9), names="batch")
    )
    words = [each.text for each in drawn.iter(f"{SVG}text")]
    assert {"<accuracy>", "lr", "accuracy", "batch 16 & 32", "batch 64", "0.001"} <= set(words)
    *points, mark = drawn.iter(f"{SVG}circle")
    best = points[1]
    assert (mark.get("cx"), mark.get("cy")) == (best.get("cx"), best.get("cy"))
    low, high = float(points[0].get("cy") or 0), float(best.get("cy") or 0)
    assert high < low  # up is more


def test_characters() -> None:
    drawn = chart.draw_characters({"": [(1, 0.0), (2, 1.0)]}, width=3, height=2)
    assert drawn.splitlines() == ["1 │  ●", "0 │●", "  └───", "   1 2"]
