"""A run that is killed goes on to the same bytes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.drawn import folder
from tests.faults import crash

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def from_the_checkout(repo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let children find this package, and restore what the harness sets."""
    monkeypatch.setenv("PYTHONPATH", str(repo), prepend=":")
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))


@pytest.mark.once
def test_killed_a_few_times(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", each=8, size=20)
    assert crash.repeated(partial(crash.recipe, epochs=7), photos, tmp_path, kills=3, seed=1) == []


@pytest.mark.slow
def test_killed_a_hundred_times(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", each=12, size=20)
    assert crash.repeated(crash.recipe, photos, tmp_path, kills=100, seed=0) == []


@pytest.mark.slow
def test_resnext50_killed_ten_times(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", each=12, size=80)
    assert crash.repeated(crash.resnext, photos, tmp_path, kills=10, seed=0) == []
