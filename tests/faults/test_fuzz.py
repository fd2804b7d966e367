"""Some hundred changed files for every reader; `python -m tests.faults.fuzz` takes as long as it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults import fuzz

if TYPE_CHECKING:
    from pathlib import Path


def test_no_reader_raises_anything_else(tmp_path: Path, home: Path) -> None:
    (tmp_path / "work").mkdir()
    counts, wrong = fuzz.fuzz(tmp_path / "work", tmp_path, seed=1, seconds=60, each=150)
    assert wrong == []
    for name in ("recipe", "override", ".ckpt", "safetensors", "Hub card", "scan"):
        assert counts[f"{name} refused"]
        assert counts[f"{name} taken"]


def test_what_is_wrong_is_noticed(tmp_path: Path) -> None:
    def read(content: bytes) -> object:
        raise KeyError("undocumented")

    reader = fuzz.Reader(read, [b"a"], [b"b"], fuzz.RecipeError)
    assert "KeyError: 'undocumented'" in fuzz.tried(reader, b"").wrong
