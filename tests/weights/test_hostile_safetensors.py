"""Safetensors crafted to mislead or to exhaust: refused with the reason, or exactly what the library reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import finetune_model
from finetune.components import Backbone, Layout
from finetune.errors import WeightsError
from finetune.weights import examining, fetching, fitting, labels, loading
from finetune.weights.formats import tensorfile
from finetune.weights.loading import read_complete
from tests.clocks import processor_time

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

NANO = {backbone.name: backbone for backbone in finetune_model.finetune_backbones()}["resnext_nano"]
SHAPES = {"stem.w": (2, 2), "stem.b": (2,)}
SPLIT = Layout(name="split", rules=((r"(stem\..*)", r"\1"),), pieces=(r"(.*)\.convs\.(\d+)\.weight", r"\1.weight"))
TOY = Backbone(name="toy", build=lambda options: {}, stages=("stem",), features=2, layouts=(SPLIT,))
ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def written(folder: Path, about: Any, data: bytes = b"", length: int | None = None) -> Path:
    """Write a file with this header, as it is or as JSON, and a stated ``length`` that may be wrong."""
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    path = folder / "x.safetensors"
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


# Beside those of weights/test_tensorfile.py.
CRAFTED: dict[str, tuple[Any, bytes]] = {
    "NaN for a side": (b'{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', bytes(4)),
    "infinity for an offset": (b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,1e999]}}', bytes(4)),
    "a fraction for a side": (b'{"w":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', bytes(4)),
    "offsets of 5,000 digits": (b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,' + b"9" * 5000 + b"]}}", bytes(4)),
    "offset that wraps around": ({"w": {**ONE, "data_offsets": [2**64 - 4, 2**64]}}, bytes(4)),
    "one offset": ({"w": {**ONE, "data_offsets": [4]}}, bytes(4)),
    "a type twice": (b'{"w":{"dtype":"F32","dtype":"I8","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "no type": ({"w": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "a comment": (b'{"w":null}//', b""),
    "two objects": (b"{}{}", b""),
    "a byte order mark": (b"\xef\xbb\xbf{}", b""),
    "UTF-16": ("{}".encode("utf-16-le"), b""),
    "a deep name": (b'{"w":' + b"[" * 100_000, b""),
    "texts twice": (b'{"__metadata__":{"a":"b"},"__metadata__":{"a":"c"}}', b""),
    "a list of texts": ({"__metadata__": ["a"]}, b""),
    "texts in texts": ({"__metadata__": {"a": {"b": "c"}}}, b""),
    "a hole between tensors": ({"w": ONE, "v": {**ONE, "data_offsets": [8, 12]}}, bytes(12)),
    "a tensor within another": ({"w": {**ONE, "shape": [4], "data_offsets": [0, 16]}, "v": ONE}, bytes(16)),
    "complex numbers": ({"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
    "half bytes": ({"w": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, bytes(1)),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_headers_are_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, *CRAFTED[name])
    for read in (read_complete, tensorfile.read_tensors, lambda path: examining.examine(path, [NANO])):
        with pytest.raises(WeightsError, match=r"x\.safetensors") as caught:
            read(path)
        assert len(str(caught.value)) < 7000


@pytest.mark.parametrize("length", [2**62, 2**63, 2**64 - 1, 2**40, 100_000_001, 1, 0])
def test_a_header_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    path = written(tmp_path, {"w": ONE}, bytes(4), length)
    with pytest.raises(WeightsError, match=r"damaged safetensors"):
        read_complete(path)[0]


def test_a_name_given_twice_is_refused_however_it_is_written(tmp_path: Path) -> None:
    for second in ('"w"', '"\\u0077"'):
        path = written(tmp_path, f'{{"w":{json.dumps(ONE)},{second}:{json.dumps(ONE)}}}'.encode(), bytes(4))
        with pytest.raises(WeightsError, match="duplicate name"):
            read_complete(path)[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stem.w": np.zeros((4, 1), np.float32)}, r"a different shape for 1: 'stem.w \(4, 1\) for \(2, 2\)'"),
        ({"stem.w": np.zeros(4, np.float32)}, r"a different shape for 1: 'stem.w \(4,\) for \(2, 2\)'"),
        ({"stem.w": np.zeros((0, 2), np.float32)}, r"a different shape for 1: 'stem.w \(0, 2\) for \(2, 2\)'"),
        ({"stem.w": np.zeros((2, 2), bool)}, "integers for 1: 'stem.w'"),
        ({"stem.w": np.array([[1, 2], [3, np.nan]], np.float32)}, "NaN or infinity in 'stem.w'"),
        ({"stem.w": np.array([[1, 2], [3, -np.inf]], np.float16)}, "NaN or infinity in 'stem.w'"),
        ({"stem.more": np.zeros(1, np.float32)}, "has no place for 1: 'stem.more'"),
        ({"stem.w\x1b[2J\n": np.zeros(1, np.float32)}, r"has no place for 1: 'stem.w\\x1b\[2J\\n'"),
        ({"": np.zeros(1, np.float32)}, "no place for 1: ''"),
        ({"stem.convs.0.weight": np.zeros(1, np.float32)}, "no place for 1: 'stem.weight'"),
        ({"stem.convs.1.weight": np.zeros(1, np.float32)}, "'stem.weight' lacks piece 0 of 2"),
        ({f"stem.convs.{'1' * 999}.weight": np.zeros(1, np.float32)}, "no place for 1: 'stem.convs.111"),
    ],
)
def test_whatever_is_not_the_networks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    path, sound = tmp_path / "x.safetensors", {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    save_file({**sound, **changed}, path)
    with pytest.raises(WeightsError, match=message):
        loading.load(fetching.Source(path=path, name="x"), TOY, SHAPES, frozenset(), True)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"use":' * 100_000, "[" + "9" * 5000 + "]", '["\\ud800"', "NaN", ""])
def test_texts_that_are_no_json_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"layer1.x": np.ones(1, np.float32)}, path, {"backbone": text, "image": text, "classes": text})
    source = fetching.Source(path=path, name="x")
    for use in (
        lambda: fitting.read_options(read_complete(path)[0], NANO),
        lambda: loading.read_image_defaults(source),
        lambda: labels.read_classes(source),
    ):
        with pytest.raises(WeightsError) as caught:
            use()
        assert len(str(caught.value)) < 7000


def test_more_tensors_than_any_network_has_are_refused(tmp_path: Path) -> None:
    none = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    path = written(tmp_path, ("{" + ",".join(f'"layer1.{i}":{none}' for i in range(100_001)) + "}").encode())
    with pytest.raises(WeightsError, match="more than 100,000 tensors"):
        read_complete(path)[0]


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("w", {**ONE, "shape": [2**62] * 1_000_000}),
        ("w", {**ONE, "data_offsets": [0] * 1_000_000}),
        ("w" * 10_000_000, ONE),
        ("1." * 5_000_000, ONE),
        ("w", {**ONE, "dtype": "F" * 10_000_000}),
    ],
    ids=["a million sides", "a million offsets", "a long name", "a long name of dots", "a long type"],
)
def test_long_parts_cost_no_time_and_give_no_long_messages(tmp_path: Path, name: str, about: dict[str, Any]) -> None:
    path = written(tmp_path, {name: about}, bytes(4))
    with processor_time() as used, pytest.raises(WeightsError) as caught:
        read_complete(path)[0]
    assert len(str(caught.value)) < 1000
    assert used.seconds < 20
