"""``check`` and ``run`` print the classes with their counts, and how folders were read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from finetune.cli import main
from finetune.display.summary import describe_classes
from tests.faults.data_makers import NANO, sound

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a recipe for photos in folders of splits that have unusual names."""
    monkeypatch.chdir(tmp_path)
    sound(tmp_path / "photos" / "training_set")
    sound(tmp_path / "photos" / "test_set", seed=1)
    file = tmp_path / "r.yaml"
    file.write_text(f"{NANO}dataset: {{use: folder, root: photos}}\ntrain: {{epochs: 1}}\n")
    return file


def test_check(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "r.yaml"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert " images 4 training, 2 validation, 6 test; 2 classes classes blue (2), red (2) training images note " in said
    assert " folders are read as train in 'training_set', test in 'test_set' " in said


def test_run(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "r.yaml"]) == 0
    said = capsys.readouterr().err
    assert "classes   blue (2), red (2) training images" in said
    assert "folders are read as train in 'training_set', test in 'test_set'" in said
    data = json.loads((recipe.parent / "runs" / "r-001" / "data.json").read_text())
    assert data["images"] == {"train": 4, "valid": 2, "test": 6}
    (note,) = [each for each in data["findings"] if each["severity"] == "note"]
    assert note["text"] == "folders are read as train in 'training_set', test in 'test_set'"


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"a": 1, "b": 2_000}, "a (1), b (2,000) training images"),
        ({str(n): n for n in range(1, 11)}, f"{', '.join(f'{n} ({n})' for n in range(1, 11))} training images"),
        (
            {str(n): 1000 - n for n in range(1000)},
            f"{', '.join(f'{n} ({1000 - n:,})' for n in range(10))} and 990 more; "
            "most: 0 (1,000), fewest: 999 (1) training images",
        ),
    ],
)
def test_many_classes_stay_one_line(counts: dict[str, int], line: str) -> None:
    assert describe_classes(counts) == line
