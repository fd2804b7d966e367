"""Memory, file descriptors and threads of long runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from finetune.machine import device
from tests.faults import flat

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def graph_mode(home: Path) -> None:
    """Start with an empty cache, as every run does that says nothing of a mode."""
    device.set_up(device="cpu")


def test_descriptors_and_threads_stay_flat(tmp_path: Path) -> None:
    samples = flat.trained(40, tmp_path)
    assert len(samples) == 10
    assert flat.grown(samples) == []


def test_what_grows_is_noticed() -> None:
    still = [(epoch, 500.0, 8, 9) for epoch in range(10)]
    assert flat.grown(still) == []
    assert flat.grown([*still[:-1], (9, 600.0, 12, 14)]) == [
        "memory grew from 500 to 600 MB",
        "8 descriptors became 12",
        "9 threads became 14",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("features", ["auto", "off"])
def test_five_hundred_epochs(features: str, tmp_path: Path) -> None:
    assert flat.grown(flat.trained(500, tmp_path, features)) == []
