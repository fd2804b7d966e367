"""Weights: from a file to a network's arrays."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from finetune.components import ImageSpec
from finetune.errors import WeightsError
from finetune.weights import fetching, loading
from finetune.weights.formats import tensorfile
from tests.weights.toy import HEAD, record, toy

if TYPE_CHECKING:
    from pathlib import Path

ARRAYS = {
    "stem.conv.weight": np.arange(8, dtype=np.float32).reshape(4, 2),
    "stem.bn.gamma": np.ones(4, np.float32),
    "head.fc.weight": np.full((3, 4), 2, np.float32),
    "head.fc.bias": np.zeros(3, np.float32),
}
SHAPES = {name: array.shape for name, array in ARRAYS.items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a weights file in the own layout."""
    path = tmp_path / "own.safetensors"
    tensorfile.write_tensors(path, ARRAYS, {})
    return path


def load(path: Path, keep_head: bool = False, expected: dict[str, tuple[int, ...]] = SHAPES) -> loading.Loaded:
    return loading.load(fetching.Source(path=path, name="x"), toy(), expected, HEAD, keep_head)


# peek and image_defaults


def test_options_come_from_the_record_then_from_the_names(file: Path) -> None:
    theirs = file.with_name("theirs.safetensors")
    tensorfile.write_tensors(theirs, {"f.conv.weight": ARRAYS["stem.conv.weight"]}, {})
    plain = fetching.Source(path=theirs, name="x")
    assert loading.read_options(plain, toy()) == {"pool": "same"}
    known = fetching.Source(path=theirs, name="x", record=record(theirs, options={"pool": "symmetric"}))
    assert loading.read_options(known, toy()) == {"pool": "symmetric"}
    assert loading.read_options(fetching.Source(path=file, name="x"), toy()) == {}
    tensorfile.write_tensors(theirs, {"strange": ARRAYS["stem.conv.weight"]}, {})
    assert loading.read_options(fetching.Source(path=theirs, name="x"), toy()) == {}


def test_files_of_this_project_say_their_options_and_images(file: Path) -> None:
    image = {"size": 64, "resize": 72, "keep_aspect": False, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    metadata = {"backbone": json.dumps({"use": "toy", "options": {"pool": "same"}}), "image": json.dumps(image)}
    tensorfile.write_tensors(file, ARRAYS, metadata)
    source = fetching.Source(path=file, name="x")
    assert loading.read_options(source, toy()) == {"pool": "same"}
    spec = ImageSpec(**loading.read_image_defaults(source))
    assert spec == ImageSpec(size=64, resize=72, keep_aspect=False, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    tensorfile.write_tensors(file, ARRAYS, {"backbone": json.dumps({"use": "another", "options": {"depth": 3}})})
    assert loading.read_options(fetching.Source(path=file, name="x"), toy()) == {}


def test_images_come_from_the_record_else_are_as_imagenet(file: Path) -> None:
    said = record(file, size=227, resize=256, keep_aspect=False, mean=(0.1, 0.2, 0.3))
    spec = ImageSpec(**loading.read_image_defaults(fetching.Source(path=file, name="x", record=said)))
    assert spec == ImageSpec(size=227, resize=256, keep_aspect=False, mean=(0.1, 0.2, 0.3))
    assert loading.read_image_defaults(fetching.Source(path=file, name="x")) == {}
    assert loading.read_image_defaults(None) == {}


@pytest.mark.parametrize(
    "metadata",
    [
        {"backbone": "{"},
        {"backbone": "[]"},
        {"backbone": '{"use": "toy", "options": {"pool": 5}}'},
        {"backbone": '{"use": "toy", "options": {"depth": 5}}'},
        {"image": "{"},
        {"image": '{"size": -4}'},
        {"image": '{"std": [0, 1, 1]}'},
    ],
)
def test_damaged_metadata_is_an_error(file: Path, metadata: dict[str, str]) -> None:
    tensorfile.write_tensors(file, ARRAYS, metadata)
    source = fetching.Source(path=file, name="x")
    with pytest.raises(WeightsError, match=r"damaged \w+ metadata"):
        (loading.read_options(source, toy()), loading.read_image_defaults(source))


# load


def test_everything_but_the_head_is_loaded_and_reported(file: Path) -> None:
    loaded = load(file)
    assert set(loaded.tensors) == SHAPES.keys() - HEAD
    assert all(np.array_equal(array, ARRAYS[name]) for name, array in loaded.tensors.items())
    assert loaded.report == {
        "source": "x",
        "path": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "layout": "finetune",
        "loaded": ["stem.conv.weight", "stem.bn.gamma"],
        "missing": [],
        "unexpected": [],
        "reinitialised": ["head.fc.weight", "head.fc.bias"],
        "ignored": [],
        "merged": {},
        "counts": {"loaded": 2, "missing": 0, "unexpected": 0, "reinitialised": 2, "ignored": 0, "merged": 0},
    }


def test_a_head_of_another_kind_or_width_starts_anew(file: Path) -> None:
    expected = {**{n: s for n, s in SHAPES.items() if n not in HEAD}, "head.hidden.weight": (7, 4)}
    source = fetching.Source(path=file, name="x")
    report = loading.load(source, toy(), expected, {"head.hidden.weight"}, False).report
    assert report["reinitialised"] == report["missing"] == ["head.hidden.weight"]
    assert sorted(report["unexpected"]) == sorted(HEAD)
    wide = {**SHAPES, "head.fc.weight": (102, 4), "head.fc.bias": (102,)}
    assert load(file, expected=wide).report["missing"] == []


def test_a_kept_head_is_loaded_too(file: Path) -> None:
    loaded = load(file, keep_head=True)
    assert set(loaded.tensors) == set(SHAPES)
    assert loaded.report["reinitialised"] == []


def test_a_kept_head_must_fit(file: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"a different shape for 1: 'head.fc.bias \(3,\) for \(5,\)'; set head.keep_pre"
    ):
        load(file, True, {**SHAPES, "head.fc.bias": (5,)})
    with pytest.raises(
        WeightsError, match=r"lacks 1: 'head.out.bias'; it has no place for 1: 'head.fc.bias'; set head"
    ):
        load(file, True, {**{n: s for n, s in SHAPES.items() if n != "head.fc.bias"}, "head.out.bias": (3,)})


def test_every_other_difference_is_an_error(file: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"own.safetensors': the file has a different shape for 1: 'stem.conv.weight"
    ):
        load(file, expected={**SHAPES, "stem.conv.weight": (4, 3)})
    with pytest.raises(WeightsError, match=r"own.safetensors': these are not .* lacks 1: 'stem.bn.beta'") as caught:
        load(file, expected={**SHAPES, "stem.bn.beta": (4,)})
    assert caught.value.exit_code == 4
    with pytest.raises(WeightsError, match=r"no place for 1: 'stem.bn.gamma'"):
        load(file, expected={n: s for n, s in SHAPES.items() if n != "stem.bn.gamma"})


def test_the_file_of_a_record_must_have_its_hash(file: Path) -> None:
    source = fetching.Source(path=file, name="x", record=record(file.parent))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match=f"has sha256 {digest}, not {'0' * 64} as expected"):
        loading.load(source, toy(), SHAPES, HEAD, False)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_widths_are_converted(file: Path, dtype: str) -> None:
    tensorfile.write_tensors(file, {name: array.astype(dtype) for name, array in ARRAYS.items()}, {})
    tensors = load(file, True).tensors
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}
    assert all(np.array_equal(array, ARRAYS[name]) for name, array in tensors.items())


def test_whole_numbers_are_no_weights(file: Path) -> None:
    tensorfile.write_tensors(file, {**ARRAYS, "stem.bn.gamma": np.ones(4, np.int64)}, {})
    with pytest.raises(WeightsError, match=r"has integers for 1: 'stem.bn.gamma'"):
        load(file)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_numbers_that_are_not_finite_are_refused(file: Path, value: float) -> None:
    bad = ARRAYS["stem.conv.weight"].astype(np.float64)
    bad[1, 1] = value
    tensorfile.write_tensors(file, {**ARRAYS, "stem.conv.weight": bad}, {})
    with pytest.raises(WeightsError, match=r"NaN or infinity in 'stem.conv.weight'"):
        load(file)
