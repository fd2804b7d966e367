"""Compares the backbone with the same network in numpy; install the package first, so that the plugin is found."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import finetune_squeezenet
import numpy as np
import pytest
from safetensors.numpy import save_file

from finetune import Finetuner, WeightsError
from finetune.testing import check_backbone

if TYPE_CHECKING:
    from pathlib import Path

BACKBONE = next(iter(finetune_squeezenet.finetune_backbones()))
POOLED = (0, 4, 7)  # a pool follows these members of torchvision's ``features``

Arrays = dict[str, np.ndarray]


def pooled(weights: Arrays, x: np.ndarray) -> np.ndarray:
    """Return the mean over the last maps, computed from weights with torchvision's names."""
    x = pool(convolve(weights, "features.0", x, stride=2))
    for number in finetune_squeezenet.FIRES:
        x = convolve(weights, f"features.{number}.squeeze", x)
        x = np.concatenate([convolve(weights, f"features.{number}.expand{k}", x) for k in ("1x1", "3x3")], 1)
        x = pool(x) if number in POOLED else x
    return x.mean((2, 3))


def windows(x: np.ndarray, side: int, stride: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (side, side), (2, 3))[:, :, ::stride, ::stride]


def convolve(weights: Arrays, name: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    around = (1, 1) if name.endswith("3x3") else (0, 0)
    x = np.pad(x, ((0, 0), (0, 0), around, around))
    y = np.tensordot(windows(x, weight.shape[2], stride), weight, ((1, 4, 5), (1, 2, 3)))
    return np.maximum(np.moveaxis(y, 3, 1) + bias[:, None, None], 0)


def pool(x: np.ndarray) -> np.ndarray:
    over = (0, 1 - x.shape[2] % 2)
    x = np.pad(x, ((0, 0), (0, 0), over, over), constant_values=-np.inf)
    return windows(x, 3, 2).max((4, 5))


def random_weights() -> Arrays:
    """Return random weights with torchvision's names and shapes."""
    shapes: dict[str, tuple[int, ...]] = {"features.0": (64, 3, 3, 3), "classifier.1": (1000, 512, 1, 1)}
    inputs = 64
    for number, squeezed in zip(finetune_squeezenet.FIRES, (16, 16, 32, 32, 48, 48, 64, 64), strict=True):
        shapes[f"features.{number}.squeeze"] = (squeezed, inputs, 1, 1)
        shapes[f"features.{number}.expand1x1"] = (4 * squeezed, squeezed, 1, 1)
        shapes[f"features.{number}.expand3x3"] = (4 * squeezed, squeezed, 3, 3)
        inputs = 8 * squeezed
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = rng.normal(0, (2 / prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)
    return weights


def embed(weights: Arrays, images: np.ndarray, folder: Path) -> np.ndarray:
    save_file(weights, folder / "weights.safetensors")
    said = {"weights": folder / "weights.safetensors", "device": "cpu", "inference": {"precision": "fp32"}}
    return Finetuner(backbone="squeezenet1_1", progress=False, **said).embed(images)


@pytest.mark.parametrize("side", [64, 67, 80])
def test_features_equal_those_of_numpy(tmp_path: Path, side: int) -> None:
    images = np.random.default_rng(side).standard_normal((2, 3, side, side), np.float32)
    weights = random_weights()
    np.testing.assert_allclose(embed(weights, images, tmp_path), pooled(weights, images), rtol=1e-4, atol=1e-4)


def test_a_file_that_lacks_a_layer_is_refused(tmp_path: Path) -> None:
    weights = random_weights()
    del weights["features.12.squeeze.bias"]
    with pytest.raises(WeightsError, match=r"lacks 1: 'fire89\.1\.squeeze\.bias'"):
        embed(weights, np.zeros((1, 3, 64, 64), np.float32), tmp_path)


def test_stages_are_as_promised() -> None:
    stages: dict[str, Any] = dict(BACKBONE.build(BACKBONE.options()))
    assert tuple(stages) == BACKBONE.stages
    assert sum(p.size for stage in stages.values() for p in stage.get_parameters()) == 722_496


def test_it_keeps_the_contract() -> None:
    check_backbone("squeezenet1_1")
