"""The backbone against the same network in numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import finetune_squeezenet
import numpy as np
import pytest

from finetune import device, layouts
from finetune.network import Features, Network, assign

if TYPE_CHECKING:
    from collections.abc import Mapping

BACKBONE = next(iter(finetune_squeezenet.finetune_backbones()))
POOLED = (0, 4, 7)  # the pools come after these members of torchvision's ``features``

Arrays = dict[str, np.ndarray]


def pooled(weights: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Return the mean over the last maps, from weights in torchvision's names."""
    for number in (0, *finetune_squeezenet.FIRES):
        name = f"features.{number}"
        if number == 0:
            x = convolve(weights, name, x, stride=2)
        else:
            x = convolve(weights, f"{name}.squeeze", x)
            x = np.concatenate([convolve(weights, f"{name}.expand{k}", x) for k in ("1x1", "3x3")], 1)
        x = pool(x) if number in POOLED else x
    return x.mean((2, 3))


def windows(x: np.ndarray, side: int, stride: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (side, side), (2, 3))[:, :, ::stride, ::stride]


def convolve(weights: Mapping[str, np.ndarray], name: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    around = 1 if name.endswith("3x3") else 0
    x = np.pad(x, ((0, 0), (0, 0), (around, around), (around, around)))
    y = np.tensordot(windows(x, weight.shape[2], stride), weight, ((1, 4, 5), (1, 2, 3)))
    return np.maximum(np.moveaxis(y, 3, 1) + bias[:, None, None], 0)


def pool(x: np.ndarray) -> np.ndarray:
    after = 1 - x.shape[2] % 2
    x = np.pad(x, ((0, 0), (0, 0), (0, after), (0, after)), constant_values=-np.inf)
    return windows(x, 3, 2).max((4, 5))


def random_weights() -> Arrays:
    """Return weights in torchvision's names and shapes."""
    rng = np.random.default_rng(0)
    network = build()
    own = {p.name: p.shape for p in network.get_parameters()}
    back = {own: f"features.{number}" for number, own in finetune_squeezenet.FIRES.items()}
    weights = {}
    for name, shape in own.items():
        stage, last = name.rsplit(".", 1)
        their = "features.0" if stage == "stem.conv" else f"{back[stage.rsplit('.', 1)[0]]}.{stage.rsplit('.', 1)[1]}"
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        weights[f"{their}.{last}"] = (scale * rng.standard_normal(shape)).astype(np.float32)
    classifier = {"classifier.1.weight": np.zeros((1000, 512, 1, 1)), "classifier.1.bias": np.zeros(1000)}
    return weights | classifier


def build(seed: int = 1) -> Any:
    """Return the network with a head that has no parameters."""
    device.setup(device="cpu")
    import mindspore as ms
    from mindspore import nn

    ms.set_seed(seed)
    return Network(BACKBONE.build(BACKBONE.options()), nn.Identity()).set_train(False)


def features(weights: Arrays, images: np.ndarray) -> np.ndarray:
    from mindspore import Tensor

    network = build()
    expected = [p.name for p in network.get_parameters()]
    found = layouts.translate(weights, expected, BACKBONE)
    assert found.layout == "torchvision"
    assert set(found.ignored) == {"classifier.1.weight", "classifier.1.bias"}
    assign(network.get_parameters(), found.tensors)
    return Features(network)(Tensor(images)).asnumpy()


@pytest.mark.parametrize("side", [64, 67, 80])
def test_features_equal_those_of_numpy(side: int) -> None:
    images = np.random.default_rng(side).standard_normal((2, 3, side, side)).astype(np.float32)
    weights = random_weights()
    np.testing.assert_allclose(features(weights, images), pooled(weights, images), rtol=1e-4, atol=1e-4)


def test_stages_are_as_promised() -> None:
    network = build()
    assert network.names[:-1] == BACKBONE.stages
    assert sum(p.size for p in network.get_parameters()) == 722_496
    assert {p.name.split(".")[0] for p in network.get_parameters()} == set(BACKBONE.stages)


def test_the_seed_decides_the_random_start() -> None:
    first, again, other = ({p.name: p.asnumpy() for p in build(seed).get_parameters()} for seed in (7, 7, 8))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["stem.conv.weight"], other["stem.conv.weight"])
