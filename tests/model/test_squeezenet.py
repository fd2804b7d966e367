"""The example backbone with weights trained on ImageNet: every name finds its place, features separate flowers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune.components import IMAGENET_MEAN, IMAGENET_STD
from finetune.weights import fetching, loading

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.components import Backbone


@pytest.fixture
def backbone(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """Return the component that the example offers."""
    monkeypatch.syspath_prepend(str(repo / "examples" / "finetune-squeezenet"))
    import finetune_squeezenet

    found: Backbone = next(iter(finetune_squeezenet.finetune_backbones()))
    return found


@pytest.fixture
def features(backbone: Backbone, squeezenet: Path) -> Any:
    """Return the pretrained network up to its pooled features."""
    from mindspore import nn

    from finetune.network.network import Network, Trunk, assign_values

    network = Network(backbone.build(backbone.options()), nn.Identity()).set_train(False)
    source = fetching.resolve(str(squeezenet), backbone)
    assert source is not None
    expected = {p.name: tuple(p.shape) for p in network.get_parameters()}
    loaded = loading.load(source, backbone, expected, frozenset(), keep_head=False)
    assert loaded.report["layout"] == "torchvision"
    assert loaded.report["counts"] == {
        "loaded": 50,
        "missing": 0,
        "unexpected": 0,
        "reinitialised": 0,
        "ignored": 2,
        "merged": 0,
    }
    assert loaded.report["ignored"] == ["classifier.1.bias", "classifier.1.weight"]
    assign_values(network.get_parameters(), loaded.tensors)
    return Trunk(network, len(network.stages))


def pixels(path: Path, size: int = 128) -> np.ndarray:
    with Image.open(path) as image:
        array = np.asarray(image.convert("RGB").resize((size, size)), np.float32) / 255
    normal = (array - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def test_pretrained_features_separate_flowers(features: Any, flowers: Path) -> None:
    from mindspore import Tensor

    def embed(split: str, classes: list[str], count: int) -> np.ndarray:
        paths = [sorted((flowers / split / name).glob("*.jpg"))[:count] for name in classes]
        images = np.stack([pixels(path) for group in paths for path in group])
        vectors = features(Tensor(images)).asnumpy()
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).reshape(len(classes), count, -1)

    classes = ["1", "49", "60", "74", "82"]
    centres = embed("train", classes, 8).mean(1)
    nearest = (embed("valid", classes, 3) @ centres.T).argmax(2)
    assert (nearest == np.arange(5)[:, None]).mean() > 0.7  # by chance 0.2
