"""``split.csv``: which images were trained on, their paths exactly as given."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from finetune.components import Encoded
from finetune.data import splitfile
from finetune.data.labelled import Part
from finetune.data.splitfile import Row

ODD = [
    "a\nb.jpg",
    "a\r\nb.jpg",
    "a\rb.jpg",
    'a"b,c.jpg',
    " a .jpg",
    "Bildschirm\u202ffoto.png",
    "\u3000\u00a0.jpg",
    "\U0001f469\u200d\U0001f52c.jpg",
    os.fsdecode(b"caf\xe9.jpg"),
    "=1+1.jpg",
    "\x1b[2J.jpg",
    "\ufeff.jpg",
]


def test_paths_come_back_exactly(tmp_path: Path) -> None:
    rows = [Row(name, "train", "klass, \u00e9\n", f"{number:032x}") for number, name in enumerate(ODD)]
    splitfile.write_split(tmp_path, rows)
    record = splitfile.read_split(tmp_path)
    assert record is not None
    assert list(record.rows) == rows
    assert os.fsencode(record.rows[8].path) == b"caf\xe9.jpg"


def test_a_surrogate_that_stands_for_no_byte_is_escaped(tmp_path: Path) -> None:
    splitfile.write_split(tmp_path, [Row("\ud800", "train", "a", "")])
    assert splitfile.read_split(tmp_path).rows[0].path == "\\ud800"  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [None, b"", b"a,b\n", b'"path","split","label","hash"\n"a","b"\n', b"\xff\0"])
def test_a_file_that_cannot_be_read_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "split.csv").write_bytes(content)
    assert splitfile.read_split(tmp_path) is None


def part(images: list[object]) -> Part:
    return Part(name="train", images=images, labels=np.zeros(len(images), np.int64), source="mine")  # type: ignore[arg-type]


def test_names_of_images() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    whole = part([Path("a\nb"), Encoded(name="in a pack", data=b""), pixels])
    assert list(splitfile.list_image_names(whole)) == ["a\nb", "in a pack", "mine[2]"]
    chosen = whole.select(np.array([2, 0]), "valid")
    assert list(splitfile.list_image_names(chosen)) == ["mine[2]", "a\nb"]


def test_the_run_of_a_model_or_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for inner in ("model", "checkpoints"):
        (run / inner).mkdir(parents=True)
    splitfile.write_split(run, [])
    for path in (run, run / "model", run / "model" / "weights.safetensors", run / "checkpoints" / "best.safetensors"):
        found = splitfile.find_split_record(path)
        assert found is not None
        assert found.folder == run
    (tmp_path / "copy").mkdir()
    assert splitfile.find_split_record(tmp_path / "copy") is None
    assert splitfile.find_split_record(tmp_path / "copy" / "weights.safetensors") is None


OLD = [Row("a", "train", "x", "1"), Row("b", "train", "x", "2"), Row("c", "valid", "y", "3")]


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ([*OLD, Row("d", "train", "x", "4")], "1 added"),
        (OLD[:2], "1 removed"),
        ([OLD[0], Row("b", "train", "x", "9"), OLD[2]], "1 changed"),
        ([OLD[0], Row("b", "train", "y", "2"), OLD[2]], "1 relabelled"),
        ([OLD[0], Row("b", "valid", "x", "2"), OLD[2]], "1 moved to another split"),
        ([OLD[0], Row("renamed", "train", "x", "2"), OLD[2]], "their order changed"),
        ([OLD[1], OLD[0], OLD[2]], "their order changed"),
        ([*OLD, Row("copy", "train", "x", "1")], "1 added"),
        ([Row("d", "train", "x", "4"), *OLD[1:]], "1 added, 1 removed"),
    ],
)
def test_changes_in_words(now: list[Row], said: str) -> None:
    assert splitfile.describe_changes(OLD, now) == said


def test_what_was_trained_on_before_is_remembered(tmp_path: Path) -> None:
    now = [Row("b", "valid", "x", "2"), Row("n", "train", "x", "5")]
    rows = splitfile.merge_rows(OLD, now)
    assert rows == [*now, Row("a", "earlier", "x", "1"), Row("b", "earlier", "x", "2")]
    splitfile.write_split(tmp_path, rows)
    assert splitfile.read_split(tmp_path).trained == {"1", "2", "5"}  # type: ignore[union-attr]
    assert splitfile.merge_rows(rows, OLD) == [*OLD, Row("n", "earlier", "x", "5")]
