"""The tables of faults name each fault once and only tests that exist, and the page shows them unchanged."""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.faults import bad_inputs, known, table

if TYPE_CHECKING:
    from pathlib import Path

# How many faults each group has; a new one gets the next number.
COUNTS = {"R": 15, "C": 12, "D": 11, "I": 11, "N": 8, "G": 14, "Y": 8, "W": 6, "T": 5, "S": 3}


def test_every_fault_is_there_once() -> None:
    expected = [f"{group}{number}" for group, count in COUNTS.items() for number in range(1, count + 1)]
    assert [each.id for each in known.FAULTS] == expected


def test_every_fault_has_tests_or_says_why_not() -> None:
    assert [each.id for each in known.FAULTS if not each.tests and not each.gap] == []


def test_every_test_exists(repo: Path) -> None:
    missing = []
    for each in known.FAULTS:
        for name in (name for name in each.tests if name != known.BAD):
            file, _, function = name.partition("::")
            tree = ast.parse((repo / file).read_text(encoding="utf-8"))
            if function not in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}:
                missing.append(f"{each.id}: {name}")
    assert missing == []


def test_bad_inputs_belong_to_faults_that_say_so() -> None:
    count = Counter(case.fault for case in bad_inputs.CASES)
    assert {each.id for each in known.FAULTS if known.BAD in each.tests} == set(count)


def test_there_are_enough_bad_inputs() -> None:
    assert len(bad_inputs.CASES) >= 150


@pytest.mark.checkout
def test_the_page_shows_the_table(repo: Path) -> None:
    page = (repo / "docs" / "faults.md").read_text(encoding="utf-8")
    shown = page.partition(table.BEGIN)[2].partition(table.END)[0]
    assert shown.strip().splitlines() == table.table()


@pytest.mark.checkout
def test_the_page_shows_every_bad_input(repo: Path) -> None:
    page = (repo / "docs" / "faults.md").read_text(encoding="utf-8")
    shown = page.partition(bad_inputs.BEGIN)[2].partition(bad_inputs.END)[0].strip().splitlines()[2:]
    assert [line.split(" | ")[:2] for line in shown] == [[f"| {each.fault}", each.name] for each in bad_inputs.CASES]
