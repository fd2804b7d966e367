"""The class names that belong to weights: whose word counts, and what is no list of names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from finetune.errors import PluginError, UsageError, WeightsError
from finetune.weights import fetching, labels
from finetune.weights.formats import tensorfile
from tests.weights.toy import record

if TYPE_CHECKING:
    from pathlib import Path

ARRAYS = {
    "f.conv.weight": np.arange(8, dtype=np.float32).reshape(4, 2),
    "last.weight": np.full((3, 4), 2, np.float32),
    "last.bias": np.zeros(3, np.float32),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a weights file in the layout of others."""
    path = tmp_path / "theirs.safetensors"
    tensorfile.write_tensors(path, ARRAYS, {})
    return path


def named(file: Path, tmp_path: Path, text: str) -> fetching.Source:
    names = tmp_path / "names.txt"
    names.write_bytes(text.encode("utf-8", "surrogateescape"))
    return fetching.Source(path=file, name="best", record=record(file, labels=names, classes=3))


def test_class_names_come_from_the_file_then_from_the_record(file: Path, tmp_path: Path) -> None:
    assert labels.read_classes(fetching.Source(path=file, name="x")) is None
    assert labels.keep_classes(named(file, tmp_path, "rose\ntulip\nlily\n")) == ("rose", "tulip", "lily")
    tensorfile.write_tensors(file, ARRAYS, {"classes": '["a", "b", "c"]'})
    assert labels.keep_classes(named(file, tmp_path, "rose\ntulip\nlily\n")) == ("a", "b", "c")


def test_a_head_without_names_cannot_be_kept(file: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights 'x': without class names .*; set head.keep_pretrained=f"):
        labels.keep_classes(fetching.Source(path=file, name="x"))
    with pytest.raises(UsageError, match=r"head.keep_pretrained needs weights with a head, but backbone.weights is"):
        labels.keep_classes(None)


@pytest.mark.parametrize("text", ["{", "[]", "[1]", '{"a": 1}'])
def test_damaged_class_names_of_a_file_are_an_error(file: Path, text: str) -> None:
    tensorfile.write_tensors(file, ARRAYS, {"classes": text})
    with pytest.raises(WeightsError, match=r"has damaged class metadata; copy it again"):
        labels.read_classes(fetching.Source(path=file, name="x"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rose\ntulip\n", "has 2 class names for 3 logits; write one name per line"),
        ("rose\n\nlily\n", r"has 3 class names \(1 of them empty\) for 3 logits"),
        ("rose\ntulip\n\udcff\n", "cannot be read"),
    ],
)
def test_a_wrong_list_of_names_is_its_plugins_fault(file: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        labels.read_classes(named(file, tmp_path, text))


@pytest.mark.parametrize(
    ("names", "distinct"),
    [
        (("rose", "tulip"), ("rose", "tulip")),
        (("crane", "maillot", "crane", "maillot"), ("crane", "maillot", "crane (2)", "maillot (2)")),
        (("a", "a", "a"), ("a", "a (2)", "a (3)")),
        (("a (2)", "a", "a"), ("a (2)", "a", "a (3)")),
        (("a", "a", "a (2)", "a (2)"), ("a", "a (3)", "a (2)", "a (2) (2)")),
    ],
)
def test_names_that_are_there_twice_get_a_number(names: tuple[str, ...], distinct: tuple[str, ...]) -> None:
    assert labels.make_distinct(names) == distinct
    assert labels.make_distinct(distinct) == distinct


def test_twins_are_distinct_wherever_they_are_read_and_reported(file: Path, tmp_path: Path) -> None:
    said: list[str] = []
    source = named(file, tmp_path, "\ufeffcrane\r\nrose \r\ncrane\r\n\r\n")
    assert labels.keep_classes(source, said.append) == ("crane", "rose", "crane (2)")
    assert said == ["weights 'best': several classes have the same name; the later ones are named 'crane (2)'"]
    assert source.record is not None
    assert labels.read_record_classes(source.record) == labels.read_classes(source) == ("crane", "rose", "crane (2)")
    tensorfile.write_tensors(file, ARRAYS, {"classes": '["a", "a", "b"]'})
    assert labels.read_classes(fetching.Source(path=file, name="x")) == ("a", "a (2)", "b")


def test_unknown_classes_are_listed_with_what_was_meant(file: Path) -> None:
    source = fetching.Source(path=file, name="best")
    labels.check_classes(source, ("rose", "tulip"), ("tulip",))
    with pytest.raises(WeightsError) as caught:
        labels.check_classes(source, ("rose", "tulip"), ("Rose", "tulip", *map(str, range(9))))
    text = str(caught.value)
    assert text.startswith(
        "the head of 'best' has 2 classes, but none named 'Rose' (did you mean 'rose', which differs"
    )
    assert "'3' and 5 more; set head.keep_pretrained=false for a new head, or use its names for the classes" in text
