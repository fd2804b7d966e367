"""Some hundred changed files for every reader; `python -m tests.faults.fuzz` takes as long as it is given."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.clocks import LONGEST
from tests.faults import fuzz

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.once


def test_no_reader_raises_anything_else(tmp_path: Path, home: Path) -> None:
    (tmp_path / "work").mkdir()
    counts, wrong = fuzz.fuzz(tmp_path / "work", tmp_path, seed=1, seconds=LONGEST, each=150)
    assert wrong == []
    for name in ("recipe", "override", ".ckpt", "safetensors", "Hub card", "scan"):
        assert counts[f"{name} refused"]
        assert counts[f"{name} taken"]


def test_what_is_wrong_is_noticed(tmp_path: Path) -> None:
    def read(content: bytes) -> object:
        raise KeyError("undocumented")

    reader = fuzz.Reader(read, [b"a"], [b"b"], fuzz.RecipeError)
    assert "KeyError: 'undocumented'" in fuzz.tried(reader, b"").wrong


def test_an_error_that_the_scan_swallows_is_noticed(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise KeyError("planted")

    monkeypatch.setattr("finetune.data.scan.examine", broken)
    reader = fuzz.readers(tmp_path)["scan"]
    assert "KeyError: 'planted'" in fuzz.tried(reader, fuzz.photos()[0]).wrong


def test_memory_is_noticed_each_time() -> None:
    reader = fuzz.Reader(lambda content: np.ones(50_000_000).sum(), [b"a"], [b"b"], fuzz.RecipeError)
    for _ in range(2):
        assert "MB more" in fuzz.tried(reader, b"").wrong


def test_a_wait_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "BLOCKED", 0.2)
    reader = fuzz.Reader(lambda content: time.sleep(LONGEST), [b"a"], [b"b"], fuzz.RecipeError)
    assert "Blocked" in fuzz.tried(reader, b"").wrong
