"""Matrix products in place of convolutions: the same outputs, gradients and statistics over the same parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetune.machine import device
from finetune_model import design

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


@pytest.mark.parametrize(("pool", "sides"), [("same", (64, 64)), ("symmetric", (64, 64)), ("symmetric", (45, 38))])
@pytest.mark.parametrize("train", [True, False])
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
