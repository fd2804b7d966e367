"""Matrix products in place of convolutions: the same outputs, gradients and statistics over the same parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetune.devices import device
from finetune_model import design

pytestmark = pytest.mark.once

LOSS = np.random.default_rng(1).standard_normal((1, design.NANO.widths[-1])).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def mindspore() -> None:
    device.setup(device="cpu")


def network(pool: str) -> Any:
    import mindspore as ms

    from finetune.model.network import Network
    from finetune_model import resnext

    ms.set_seed(3)
    from mindspore import nn

    return Network(resnext.build(design.NANO, pool), nn.Identity())


def step(net: Any, sides: tuple[int, int], *, products: bool, train: bool, first: int = 0) -> Any:
    """Return features, gradients and statistics by name."""
    import mindspore as ms
    from mindspore import Tensor

    from finetune.model.network import Chain, statistics
    from finetune_model import matrix_form

    stages = {name: net.cell(name) for name in net.names[:-1]}
    form = matrix_form.products(stages) if products else None
    chain = Chain(net, slice(first, None), form)
    for stage in stages.values():
        stage.set_train(train)
    images = np.random.default_rng(0).standard_normal((4, 3 if not first else 64, *sides), np.float32)
    learnt = [p for p in chain.get_parameters() if not statistics(p)]

    def loss(x: Tensor) -> Any:
        out = chain(x)
        return (out * out * Tensor(LOSS)).sum(), out

    (_, out), gradients = ms.value_and_grad(loss, None, learnt, has_aux=True)(Tensor(images))
    moved = {p.name: p.asnumpy() for p in chain.get_parameters() if statistics(p)}
    return out.asnumpy(), {p.name: g.asnumpy() for p, g in zip(learnt, gradients, strict=True)}, moved


@pytest.mark.parametrize(
    ("pool", "sides", "train"),
    [("same", (64, 64), True), ("symmetric", (45, 38), True), ("symmetric", (64, 64), False)],
)
def test_products_equal_convolutions(pool: str, sides: tuple[int, int], train: bool) -> None:
    expected, found = (step(network(pool), sides, products=form, train=train) for form in (False, True))
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-5, atol=2e-5 * float(np.abs(expected[0]).max()))
    for kind in (1, 2):
        assert list(found[kind]) == list(expected[kind])
        for name, array in expected[kind].items():
            largest = float(np.abs(array).max())
            assert float(np.abs(found[kind][name] - array).max()) <= 1e-4 * largest, name


def test_a_tail_takes_the_maps_that_a_trunk_returns() -> None:
    expected, found = (step(network("same"), (16, 16), products=form, train=False, first=2) for form in (False, True))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5 * float(np.abs(expected[0]).max()))


def test_parameters_are_shared_and_keep_their_names() -> None:
    from finetune_model import matrix_form

    net = network("same")
    before = {id(p): p.name for p in net.get_parameters()}
    form = matrix_form.products({name: net.cell(name) for name in net.names[:-1]})
    held = {id(p): p.name for stage in form.values() for p in stage.get_parameters()}
    assert held == before
    assert {p.name for p in net.get_parameters()} == set(before.values())


def test_training_steps_are_the_same_in_both_forms() -> None:
    import json

    from finetune.data.loader import Batch
    from finetune.model import heads
    from finetune.model.network import Network, values
    from finetune.recipe.models import Recipe
    from finetune.training.phases import Phase
    from finetune.training.trainer import Trainer
    from finetune_model import matrix_form

    rng, trained = np.random.default_rng(0), []
    images, soft = rng.standard_normal((4, 3, 48, 48), np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    every = np.arange(4)
    batch = Batch(images=images, labels=every, weights=np.ones(4, np.float32), indices=every, targets=soft)
    for products in (False, True):
        said = {"dataset": {"use": "none"}, "optimizer": {"use": "sgd", "lr": 0.01}, "train": {"batch_size": 4}}
        recipe = Recipe.model_validate_json(json.dumps(said))
        stages = {name: cell for name, cell in zip(network("same").names, network("same").stages, strict=False)}
        net = Network(stages, heads.build(recipe.head, design.NANO.widths[-1], 3, 0))
        form = matrix_form.products({name: net.cell(name) for name in net.names[:-1]}) if products else None
        trainer = Trainer(recipe, net, features=design.NANO.widths[-1], images=4, amp="off")
        trainer.enter(Phase(number=1, first=1, last=9, trainable=net.names), 0, form)
        losses = [trainer.step([batch], 1, number) for number in range(3)]
        trained.append((losses, values(net.get_parameters())))
    (expected, before), (found, after) = trained
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert {name: array.shape for name, array in after.items()} == {name: array.shape for name, array in before.items()}
    for name, array in before.items():
        assert float(np.abs(after[name] - array).max()) <= 1e-3 * max(float(np.abs(array).max()), 1e-3), name
