"""Every bad input ends in its exit code, with a message that names the thing and the remedy, soon and small."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from finetune.display.failures import CODES
from tests.faults import bad_inputs
from tests.faults.case import outcome

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.case import Case, Outcome

pytestmark = pytest.mark.once


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Load MindSpore before anything is timed."""
    import mindspore  # noqa: F401


@pytest.mark.parametrize("each", bad_inputs.CASES, ids=str)
def test_bad_input(each: Case, tmp_path: Path) -> None:
    found = run_until_quick(each, tmp_path)
    assert bad_inputs.wrong(each, found) == [], found.message or found.stderr
    assert found.code in CODES


def run_until_quick(each: Case, folder: Path) -> Outcome:
    """Run a case again, up to three times, while it takes more processor time than it may, as on a busy machine."""
    for number in range(3):
        place = folder / str(number)
        place.mkdir()
        found = outcome(each, place)
        if found.seconds <= bad_inputs.SECONDS:
            break
    return found


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(map(str, bad_inputs.CASES)).items() if count > 1] == []
