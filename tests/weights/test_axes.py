"""Layouts whose tensors have their axes in another order, as Keras has them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune.components import Layout
from finetune.errors import WeightsError
from finetune.weights import converted, examining, fetching, loading
from finetune.weights.examining import convert
from finetune.weights.formats import tensorfile
from tests.weights.drawn_files import checkpoint
from tests.weights.nano import entries
from tests.weights.toy import HEAD, toy

if TYPE_CHECKING:
    from pathlib import Path

    from finetune import Backbone

pytestmark = pytest.mark.usefixtures("home")

KERAS = Layout(
    name="keras",
    rules=(
        (r"conv/kernel", "stem.conv.weight"),
        (r"depthwise/kernel", "stem.depthwise.weight"),
        (r"predictions/kernel", "head.fc.weight"),
        (r"predictions/bias", "head.fc.bias"),
    ),
    transpose=((r"conv/kernel", (3, 2, 0, 1)), (r"depthwise/kernel", (2, 3, 0, 1)), (r"predictions/kernel", (1, 0))),
    writes=(
        (r"stem\.conv\.weight", "conv/kernel"),
        (r"stem\.depthwise\.weight", "depthwise/kernel"),
        (r"head\.fc\.weight", "predictions/kernel"),
        (r"head\.fc\.bias", "predictions/bias"),
    ),
)
SHAPES = {
    "stem.conv.weight": (8, 3, 5, 7),
    "stem.depthwise.weight": (8, 1, 3, 3),
    "head.fc.weight": (4, 8),
    "head.fc.bias": (4,),
}


def keras(*layouts: Layout) -> Backbone:
    stages = {name: shape for name, shape in SHAPES.items() if name.startswith("stem")}
    return replace(toy(), layouts=layouts or (KERAS,), features=8, shapes=lambda options: stages)


def own(kind: type = np.float32) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(kind) for name, shape in SHAPES.items()}


def theirs(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the same numbers as Keras orders them: HWIO for convolutions, inputs before outputs for Dense."""
    return {
        "conv/kernel": np.ascontiguousarray(np.einsum("oihw->hwio", arrays["stem.conv.weight"])),
        "depthwise/kernel": np.ascontiguousarray(np.einsum("oihw->hwoi", arrays["stem.depthwise.weight"])),
        "predictions/kernel": np.ascontiguousarray(arrays["head.fc.weight"].T),
        "predictions/bias": arrays["head.fc.bias"],
    }


def loaded(path: Path, backbone: Backbone) -> loading.Loaded:
    return loading.load(fetching.Source(path=path, name="x"), backbone, SHAPES, HEAD, True)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
def test_axes_come_in_the_order_of_the_network(kind: type, tmp_path: Path) -> None:
    arrays = own(kind)
    tensorfile.write_tensors(tmp_path / "k.safetensors", theirs(arrays), {})
    found = loaded(tmp_path / "k.safetensors", keras())
    assert found.report["layout"] == "keras"
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.tensors[name], array.astype(np.float32))


def test_a_checkpoint_is_transposed_once_and_comes_from_the_cache_alike(home: Path, tmp_path: Path) -> None:
    arrays = own()
    path = checkpoint(tmp_path / "k.ckpt", theirs(arrays))
    for _ in range(2):
        found = loaded(path, keras())
        assert all(np.array_equal(found.tensors[name], array) for name, array in arrays.items())
        assert len(entries(home)) == 1
    without = replace(KERAS, transpose=())
    assert converted.hash_rules(keras()) != converted.hash_rules(keras(without))


def test_converting_transposes_back(tmp_path: Path) -> None:
    arrays = own()
    path = tmp_path / "k.safetensors"
    tensorfile.write_tensors(path, theirs(arrays), {})
    mine, again = tmp_path / "own.safetensors", tmp_path / "again.safetensors"
    convert(examining.examine(path, [], keras()), "safetensors", mine)
    assert all(np.array_equal(tensorfile.read_tensors(mine).tensors[name], array) for name, array in arrays.items())
    convert(examining.examine(mine, [], keras()), "keras", again)
    assert {n: a.tobytes() for n, a in tensorfile.read_tensors(again).tensors.items()} == {
        n: a.tobytes() for n, a in theirs(arrays).items()
    }


def test_axes_that_a_tensor_has_not_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "k.safetensors"
    tensorfile.write_tensors(path, theirs(own()) | {"predictions/kernel": np.zeros((2, 2, 2), np.float32)}, {})
    message = r"'predictions/kernel' has 3 axes, but the layout 'keras' reorders them as \(1, 0\);"
    with pytest.raises(WeightsError, match=message):
        loaded(path, keras())


def test_a_layout_that_does_not_transpose_gets_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "k.safetensors"
    tensorfile.write_tensors(path, theirs(own()), {})
    with pytest.raises(WeightsError, match=r"has a different shape for 3: .*, or let its Layout transpose these axes"):
        loaded(path, keras(replace(KERAS, transpose=())))
