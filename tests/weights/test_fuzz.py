"""Any file gives what its numbers say, or a WeightsError, and nothing else: checkpoints, safetensors, their texts.

``FINETUNE_FUZZ_SECONDS`` is how long the slow test looks for a file that does not.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from itertools import count
from math import prod
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import finetune_model
from finetune.errors import WeightsError
from finetune.weights import fetching, fitting, labels, layouts, loading
from finetune.weights.formats import tensorfile
from tests.weights.files import item

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from finetune.weights.formats.tensorfile import Index

pytestmark = pytest.mark.once

NANO = {backbone.name: backbone for backbone in finetune_model.finetune_backbones()}["resnext_nano"]

NUMBERS = st.sampled_from([0, 1, 2, 127, 128, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**69])
SIDES = st.integers(0, 4)
NAMES = st.sampled_from(
    ["w", "v", "stem.bn.gamma", "layer1.0.conv2.weight", "network.backbone.bn.beta", "moments.w", "learning_rate"]
    + [f"backbone.layer1.0.conv2.convs.{piece}.weight" for piece in (0, 1, 2, "00", 10**9, "9" * 5000, "\u0661")]
)
TEXTS = st.sampled_from(["backbone", "image", "classes"])
CODES = st.sampled_from(["F32", "F16", "BF16", "F64", "BOOL", "I8", "I64", "U8", "U64"])
KINDS = st.sampled_from([b"Float32", b"Float16", b"BFloat16", b"Float64", b"Bool", b"Int64", b"UInt8", b"str"])
ITEMSIZES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "BOOL": 1, "I8": 1, "I64": 8, "U8": 1, "U64": 8}
WIDTHS = {b"Float32": 4, b"Float16": 2, b"BFloat16": 2, b"Float64": 8, b"Bool": 1, b"Int64": 8, b"UInt8": 1}

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(max_size=5), PLAIN, max_size=3)
OPTIONS = st.dictionaries(st.sampled_from(["stem_pool", "x"]), st.sampled_from(["same", "auto", 3, None]))
ABOUT = st.fixed_dictionaries({"use": st.sampled_from(["resnext_nano", "other", None]), "options": OPTIONS | JSON})
SPEC = st.dictionaries(st.sampled_from(["size", "resize", "mean", "std", "keep_aspect"]), JSON, max_size=3)
CLASSES = st.lists(st.text(max_size=3), max_size=3)
DEEP = st.builds(
    lambda start, depth: start * depth, st.sampled_from(["[", '{"a":', "[{},"]), st.sampled_from([9, 5000])
)
SAID = (ABOUT | SPEC | CLASSES | JSON).map(json.dumps) | DEEP | st.sampled_from(["1" * 5000, "NaN", '"\\ud800"', "{"])

STRANGE = 20  # one part of so many is not what it should be


def odd(draw: Callable[..., Any], usual: Any, strange: st.SearchStrategy[Any]) -> Any:
    """Return the usual, or sometimes something strange."""
    return draw(strange) if draw(st.integers(1, STRANGE)) == STRANGE else usual


@st.composite
def tensors(draw: Callable[..., Any]) -> bytes:
    """Draw a TensorProto, its fields mostly in order and its content mostly of its shape."""
    kind, dims = draw(KINDS), draw(st.lists(SIDES, max_size=4))
    size = prod(dims) * WIDTHS.get(kind, 4)
    content = odd(draw, bytes(size), st.binary(max_size=40))
    fields = [item(1, odd(draw, dim, NUMBERS)) for dim in dims]
    fields += [item(2, odd(draw, kind, st.just(b"Int4") | st.binary(max_size=9)))]
    fields += [item(3, content, odd(draw, None, st.integers(0, 2 * size + 9)))]
    return b"".join(odd(draw, fields, st.permutations(fields)))


@st.composite
def checkpoints(draw: Callable[..., Any]) -> bytes:
    """Draw a checkpoint: Values with tags and tensors, sometimes repeated, nested wrongly or with more fields."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        tag = odd(draw, draw(NAMES).encode(), st.binary(max_size=20))
        fields = [item(1, tag), item(2, odd(draw, draw(tensors()), st.binary(max_size=20)))]
        fields += odd(draw, [], st.lists(st.builds(item, st.integers(0, 9), NUMBERS | st.binary(max_size=9))))
        value = item(1, b"".join(fields))
        found += [value] * odd(draw, 1, st.integers(0, 3))
    return damaged(draw, b"".join(found))


@st.composite
def safetensors(draw: Callable[..., Any]) -> bytes:
    """Draw a safetensors file: mostly tensors one after the other, texts, a header of the stated length."""
    header, end = {}, 0
    for name in draw(st.lists(NAMES | st.text(max_size=9), max_size=4)):
        code = odd(draw, draw(CODES), st.sampled_from(["F8_E4M3", "F4", "C64", "f32", ""]))
        shape = draw(st.lists(SIDES, max_size=4))
        start, end = end, end + prod(shape) * ITEMSIZES.get(code, 1)
        shape, offsets = odd(draw, shape, st.lists(NUMBERS, max_size=4)), odd(draw, [start, end], st.lists(NUMBERS))
        header[name] = {"dtype": code, "shape": shape, "data_offsets": offsets}
    texts = draw(st.dictionaries(TEXTS, SAID, max_size=3))
    parts = [json.dumps({"__metadata__": texts})[1:-1]] if texts else []
    parts += [json.dumps({name: about})[1:-1] for name, about in header.items()]
    parts += odd(draw, [], st.lists(st.sampled_from(parts or [""])))
    text = b"{" + ",".join(parts).encode() + b"}"
    length = odd(draw, len(text), NUMBERS | st.integers(0, 300)) % 2**64
    return damaged(draw, length.to_bytes(8, "little") + text + bytes(end))


def damaged(draw: Callable[..., Any], whole: bytes) -> bytes:
    """Return the bytes as they are, or after a few changes that a disk or an enemy could make."""
    content = bytearray(whole)
    for _ in range(odd(draw, 0, st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        match draw(st.sampled_from(["flip", "cut", "insert", "remove", "repeat"])):
            case "flip" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del content[at:]
            case "insert":
                content[at:at] = draw(st.binary(max_size=12))
            case "remove":
                del content[at : at + draw(st.integers(1, 12))]
            case "repeat":
                content += content[at:]
    return bytes(content)


def examined(path: Path, content: bytes) -> str:
    """Read a file in every way there is and return what came of it; anything but a WeightsError is raised."""
    path.write_bytes(content)
    try:
        found = loading.read_complete(path)[0]
        read = {name: tensorfile.read_array(path, name, record) for name, record in found.records.items()}
    except WeightsError:
        return "refused"
    for name, record in found.records.items():
        assert read[name].shape == record.shape
    assert sum(array.nbytes for array in read.values()) <= 2 * len(content)  # bfloat16 becomes float32
    return used(path, found)


def used(path: Path, found: Index) -> str:
    """Use a readable file as weights and return whether it went."""
    source = fetching.Source(path=path, name="x")
    went = []
    for use in (
        lambda: layouts.find_layout(found.records, NANO),
        lambda: fitting.read_options(found, NANO),
        lambda: fitting.fit(found, NANO),
        lambda: loading.read_image_defaults(source),
        lambda: labels.read_classes(source),
    ):
        try:
            use()
            went.append(True)
        except WeightsError:
            went.append(False)
    return "read" if all(went[:2]) and all(went[3:]) else "of damaged texts"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "x"


@given(content=checkpoints())
@settings(max_examples=300)
def test_checkpoints(place: Path, content: bytes) -> None:
    examined(place, content)


@given(content=safetensors())
@settings(max_examples=300)
def test_safetensors(place: Path, content: bytes) -> None:
    examined(place, content)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_for_as_long_as_asked(place: Path) -> None:
    end = time.monotonic() + float(os.environ.get("FINETUNE_FUZZ_SECONDS", "60"))
    came: Counter[str] = Counter()
    for seed in count():
        for strategy in (checkpoints, safetensors):
            look(strategy, seed, place, came)
        if time.monotonic() > end:
            break
    print(f"\n{came.total():,} files: {dict(came)}")
    assert {"checkpoints refused", "checkpoints read", "safetensors refused", "safetensors read"} <= {*came}


def look(strategy: Callable[..., Any], seed: int, place: Path, came: Counter[str]) -> None:
    """Look at some hundred files of a strategy, the same for the same seed, and count what came of them."""

    @hypothesis.seed(seed)
    @settings(max_examples=500, database=None, suppress_health_check=[*HealthCheck])
    @given(content=strategy())
    def one(content: bytes) -> None:
        came[f"{strategy.__name__} {examined(place, content)}"] += 1

    one()
