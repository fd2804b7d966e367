"""Where a network is divided, and that trunk and tail together are the whole network, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetune.data import targets
from finetune.data.loader import Batch
from finetune.machine import device
from finetune.network.network import find_trunk
from finetune.recipe.models import Recipe
from finetune.training.phases import Phase
from tests.features import tiny

pytestmark = pytest.mark.once

STAGES = ("stem", "layer1", "layer2", "head")


@pytest.fixture(scope="module", autouse=True)
def mindspore() -> None:
    device.set_up(device="cpu")


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        (("head",), ("stem", "layer1", "layer2")),
        (("layer2", "head"), ("stem", "layer1")),
        (("layer1", "layer2", "head"), ("stem",)),
        (STAGES, ()),
        (("head", "stem"), ()),  # what is frozen above a stage that trains stays in the tail
        (("layer1", "head"), ("stem",)),
        (("layer1",), ("stem",)),
        (("layer2",), ("stem", "layer1")),
        ((), STAGES),
    ],
)
def test_the_trunk_is_the_longest_frozen_prefix(trainable: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert find_trunk(STAGES, trainable) == expected
    assert find_trunk(list(STAGES), frozenset(trainable)) == expected
    assert find_trunk(STAGES, (stage for stage in trainable)) == expected


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_the_tail_of_the_trunks_output_is_the_whole_network(first: int) -> None:
    from mindspore import Tensor

    from finetune.network.network import Tail, Trunk

    network, images, ones = tiny.network(), Tensor(tiny.images(6)), Tensor(np.ones((1, 1), np.float32))
    network.set_train(False)
    whole, features = network(images, ones).asnumpy(), Trunk(network, first)(images)
    assert (features.shape == (6, tiny.WIDTHS[-1])) == (first == 3)
    assert np.allclose(Tail(network, first)(features, ones).asnumpy(), whole, atol=1e-5)
    assert np.ptp(whole, axis=0).min() > 0.01


@pytest.mark.parametrize("trainable", [("head",), ("neck", "head"), ("body", "head"), ("neck",)])
def test_a_step_from_features_is_the_step_from_images(trainable: tuple[str, ...]) -> None:
    from mindspore import Tensor

    from finetune.network.network import Trunk

    first = len(find_trunk(tiny.NAMES, trainable))
    images = tiny.images(8)
    network = tiny.network()
    network.set_train(False)
    features = Trunk(network, first)(Tensor(images)).asnumpy()
    before, whole = stepped(trainable, 0, images)
    same, divided = stepped(trainable, first, features)
    assert all(np.array_equal(before[name], same[name]) for name in before)
    for name in before:
        # With this optimizer the difference is the gradient, and for BatchNorm what its statistics moved by.
        a, b = whole[name] - before[name], divided[name] - before[name]
        assert np.allclose(a, b, atol=1e-5), name
        trains = name.split(".")[0] in trainable
        assert bool(np.abs(b).max() > 1e-4) == trains, name


def stepped(trainable: tuple[str, ...], first: int, inputs: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all arrays before and after one step of plain gradient descent at rate 1."""
    from finetune.network.network import read_values
    from finetune.training.trainer import Trainer

    said = {
        "dataset": {"use": "none"},
        "schedule": {"use": "constant", "phase_warmup": 0.0},
        "optimizer": {"use": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0},
        "train": {"batch_size": 8, "epochs": 1},
    }
    network = tiny.network()
    trainer = Trainer(Recipe.model_validate(said, strict=False), network, features=12, images=8, amp="off")
    trainer.enter(Phase(number=1, first=1, last=1, trainable=trainable), first)
    labels, weights = np.arange(8) % 3, np.ones(8, np.float32)
    soft = targets.make_soft_targets(labels, weights, 3, 0.0, None)
    before = {name: array.copy() for name, array in read_values(network.get_parameters()).items()}
    trainer.step([Batch(images=inputs, labels=labels, weights=weights, indices=labels, targets=soft)], 1, 0)
    return before, read_values(network.get_parameters())
