"""A PyTorch network's weights, in every layout, compute in MindSpore what they compute in PyTorch.

Relative here means the largest difference divided by the largest number of what PyTorch computed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import finetune_model
from finetune import Finetuner
from finetune.weights import fetching, loading
from tests.weights import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.weights.files import Arrays

pytestmark = [pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed"), pytest.mark.once]

RESNEXT50 = {backbone.name: backbone for backbone in finetune_model.finetune_backbones()}["resnext50"]
HEAD = frozenset({"head.fc.weight", "head.fc.bias"})
TOLERANCE = 1e-4
FP32 = {"precision": "fp32"}
SIZES = (224, 227)
# File, the layout that it is known as, and the padding that its networks have.
LAYOUTS = {
    "ascend": ("mindspore-hub", "same"),
    "ascend-network": ("mindspore-hub", "same"),
    "gpu": ("mindspore-hub", "same"),
    "mindcv": ("mindcv", "same"),
    "own-same": ("finetune", "same"),
    "own-symmetric": ("finetune", "symmetric"),
    "torchvision": ("torchvision", "symmetric"),
    "pth": ("torchvision", "symmetric"),
}


@dataclass(frozen=True)
class Drawn:
    """A PyTorch network: its state, what it computes, and files of it by name."""

    state: Arrays
    expected: Arrays
    files: dict[str, Path]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drawn]:
    """Let PyTorch draw and compute in a process of its own; a gigabyte of files, removed in the end."""
    folder = tmp_path_factory.mktemp("parity")
    script = str(Path(files.__file__).with_name("torch_resnext.py"))
    subprocess.run([sys.executable, script, str(folder)], check=True)
    state, expected = (dict(np.load(folder / f"{name}.npz")) for name in ("state", "expected"))
    written = {**files.write_all(folder, state), "pth": folder / "state.pth"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_HOME", str(folder / "home"))
        yield Drawn(state, expected, written)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def networks() -> Callable[[str], Any]:
    """Return what builds a network that returns features and logits, one for each padding of the stem."""
    from finetune.machine import device

    device.set_up(device="cpu")
    import mindspore as ms
    from mindspore import nn

    from finetune.network import heads
    from finetune.network.network import Network, build_stages
    from finetune.recipe.models import LinearHead

    class Both(nn.Cell):  # type: ignore[misc]
        def __init__(self, network: Network) -> None:
            super().__init__(auto_prefix=False)
            self.network = network
            self.mask = ms.Tensor(np.ones((1, 1), np.float32))

        def construct(self, images: Any) -> Any:
            features = self.network.compute_features(images)
            return features, self.network.head(features, self.mask)

    @cache
    def build(padding: str) -> Both:
        stages = build_stages(RESNEXT50, RESNEXT50.options(stem_pool=padding))
        return Both(Network(stages, heads.build_head(LinearHead(), RESNEXT50.features, 1000, 1))).set_train(False)

    return build


def difference(found: Any, expected: Any) -> float:
    """Return the largest difference relative to the largest number expected."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_the_comparison_means_something(drawn: Drawn) -> None:
    for name in ("features", "logits"):
        for size in SIZES:
            same, symmetric = (drawn.expected[f"{name}-{padding}-{size}"] for padding in ("same", "symmetric"))
            assert 0.1 < same.std() < 10
            assert difference(same[1:], same[:-1]) > 100 * TOLERANCE  # from image to image
            assert difference(symmetric, same) > 100 * TOLERANCE
    for name, array in drawn.state.items():
        if name.endswith(("running_mean", "running_var")):
            assert array.std() > 0.1


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_computes_what_pytorch_computes(drawn: Drawn, networks: Any, name: str) -> None:
    import mindspore as ms

    from finetune.network.network import assign_values

    layout, padding = LAYOUTS[name]
    source = fetching.resolve(str(drawn.files[name]), RESNEXT50)
    assert source is not None
    assert loading.read_options(source, RESNEXT50)["stem_pool"] == padding
    both = networks(padding)
    parameters = list(both.network.get_parameters())
    loaded = loading.load(source, RESNEXT50, {p.name: tuple(p.shape) for p in parameters}, HEAD, True)
    assert loaded.report["layout"] == layout
    mine = files.own(drawn.state)
    assert loaded.tensors.keys() == mine.keys()
    assert all(array.dtype == np.float32 for array in loaded.tensors.values())
    assert all(np.array_equal(array, mine[own]) for own, array in loaded.tensors.items())
    assign_values(parameters, loaded.tensors)
    for size in SIZES:
        found = both(ms.Tensor(drawn.expected[f"images-{size}"]))
        for what, tensor in zip(("features", "logits"), found, strict=True):
            assert difference(tensor.asnumpy(), drawn.expected[f"{what}-{padding}-{size}"]) < TOLERANCE
    assign_values(
        parameters, {p.name: np.zeros(p.shape, np.float32) for p in parameters}
    )  # nothing is left for the next


@pytest.mark.parametrize(("name", "size"), [("ascend", 227), ("torchvision", 224)])
def test_embed_returns_what_pytorch_computes(drawn: Drawn, name: str, size: int) -> None:
    finetuner = Finetuner(backbone="resnext50", weights=drawn.files[name], device="cpu", progress=False, inference=FP32)
    found = finetuner.embed(drawn.expected[f"images-{size}"])
    assert found.shape == (8, 2048)
    assert found.dtype == np.float32
    assert difference(found, drawn.expected[f"features-{LAYOUTS[name][1]}-{size}"]) < TOLERANCE


def test_the_padding_can_be_another_than_that_of_the_layout(drawn: Drawn) -> None:
    backbone = {"use": "resnext50", "stem_pool": "symmetric"}
    finetuner = Finetuner(backbone=backbone, weights=drawn.files["gpu"], device="cpu", progress=False, inference=FP32)
    found = finetuner.embed(drawn.expected["images-224"][:2])
    assert difference(found, drawn.expected["features-symmetric-224"][:2]) < TOLERANCE


@pytest.mark.parametrize("prefix", ["", "network."])
def test_every_name_of_a_checkpoint_of_ascend_is_accounted_for(drawn: Drawn, prefix: str) -> None:
    source = fetching.resolve(str(drawn.files["ascend-network" if prefix else "ascend"]), RESNEXT50)
    assert source is not None
    mine = files.own(drawn.state)
    report = loading.load(source, RESNEXT50, {name: array.shape for name, array in mine.items()}, HEAD, True).report
    assert (report["missing"], report["unexpected"], report["reinitialised"]) == ([], [], [])
    assert set(report["loaded"]) == set(mine)
    grouped = {own: array.shape for own, array in mine.items() if own.endswith("conv2.weight")}
    assert report["merged"] == {own: outputs // inputs for own, (outputs, inputs, *_) in grouped.items()}
    assert sum(report["merged"].values()) == 16 * 32
    theirs = files.ascend(drawn.state, prefix)
    network = {prefix + name for name in files.hub(drawn.state)}
    assert set(report["ignored"]) == {each for each in theirs if re.sub(r"\.convs\.\d+", "", each) not in network}
    assert report["counts"] == {kind: len(report[kind]) for kind in report["counts"]}
