"""Matrix matmul_form in place of convolutions: the same outputs, gradients and statistics over the same parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetune.machine import device
from finetune_model import design

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("graph_mode")]

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
LOSS = np.random.default_rng(1).standard_normal((1, design.NANO.widths[-1])).astype(np.float32)


@pytest.fixture(autouse=True)
def pynative() -> None:
    """Compile nothing, which takes five times as long as all else; one test does, and those of whole runs."""
    device.set_up(device="cpu", settings=device.Settings(mode="pynative"))


def compile_graphs() -> None:
    device.set_up(device="cpu")


def network(pool: str) -> Any:
    import mindspore as ms

    from finetune.network.network import Network
    from finetune_model import resnext

    ms.set_seed(3)
    from mindspore import nn

    return Network(resnext.build(design.NANO, pool), nn.Identity())


def in_form(net: Any, stages: tuple[str, ...]) -> dict[str, Any] | None:
    """Return some stages in matmul form."""
    from finetune_model import matmul_form

    made = matmul_form.build_matmul_form({name: net.get_stage(name) for name in net.names[:-1]})
    return {name: made[name] for name in stages} or None


def step(net: Any, sides: tuple[int, int], *, form: tuple[str, ...], train: bool, first: int = 0) -> Any:
    """Return features, gradients and statistics by name, with the stages of ``form`` in matmul form."""
    import mindspore as ms
    from mindspore import Tensor

    from finetune.network.network import Chain, is_statistic

    chain = Chain(net, slice(first, None), in_form(net, form))
    for stage in net.stages:
        stage.set_train(train)
    images = np.random.default_rng(0).standard_normal((4, 3 if not first else 64, *sides), np.float32)
    learnt = [p for p in chain.get_parameters() if not is_statistic(p)]

    def loss(x: Tensor) -> Any:
        out = chain(x)
        return (out * out * Tensor(LOSS)).sum(), out

    (_, out), gradients = ms.value_and_grad(loss, None, learnt, has_aux=True)(Tensor(images))
    moved = {p.name: p.asnumpy() for p in chain.get_parameters() if is_statistic(p)}
    return out.asnumpy(), {p.name: g.asnumpy() for p, g in zip(learnt, gradients, strict=True)}, moved


@pytest.mark.parametrize(
    ("pool", "sides", "train", "form", "mode"),
    [
        ("same", (64, 64), True, STAGES, "pynative"),
        ("symmetric", (45, 38), True, STAGES, "pynative"),
        ("symmetric", (64, 64), False, STAGES, "pynative"),
        ("symmetric", (45, 38), True, ("layer3", "layer4"), "pynative"),
        ("same", (32, 32), True, ("stem", "layer2", "layer3"), "graph"),  # to matmul form and back, twice
    ],
)
def test_products_equal_convolutions(
    pool: str, sides: tuple[int, int], train: bool, form: tuple[str, ...], mode: str
) -> None:
    if mode == "graph":
        compile_graphs()
    expected, found = (step(network(pool), sides, form=each, train=train) for each in ((), form))
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-5, atol=2e-5 * float(np.abs(expected[0]).max()))
    for kind in (1, 2):
        assert list(found[kind]) == list(expected[kind])
        for name, array in expected[kind].items():
            largest = float(np.abs(array).max())
            assert float(np.abs(found[kind][name] - array).max()) <= 1e-4 * largest, name


def test_a_tail_takes_the_maps_that_a_trunk_returns() -> None:
    expected, found = (step(network("same"), (16, 16), form=form, train=False, first=2) for form in ((), STAGES))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5 * float(np.abs(expected[0]).max()))


def test_parameters_are_shared_and_keep_their_names() -> None:
    from finetune_model import matmul_form

    net = network("same")
    before = {id(p): p.name for p in net.get_parameters()}
    form = matmul_form.build_matmul_form({name: net.get_stage(name) for name in net.names[:-1]})
    held = {id(p): p.name for stage in form.values() for p in stage.get_parameters()}
    assert held == before
    assert {p.name for p in net.get_parameters()} == set(before.values())


def test_a_trunk_ends_in_maps_that_convolutions_take() -> None:
    from mindspore import Tensor

    from finetune.network.network import Trunk

    net = network("same")
    net.set_train(False)
    images = Tensor(np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32))
    expected, found = (Trunk(net, 3, in_form(net, form))(images).asnumpy() for form in ((), ("layer1", "layer2")))
    assert found.shape == expected.shape == (3, 128, 4, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * float(np.abs(expected).max()))


def test_training_steps_are_the_same_in_all_forms() -> None:
    import json

    from finetune.data.loader import Batch
    from finetune.network import heads
    from finetune.network.network import Network, read_values
    from finetune.recipe.models import Recipe
    from finetune.training.phases import Phase
    from finetune.training.trainer import Trainer

    rng, trained = np.random.default_rng(0), []
    images, soft = rng.standard_normal((4, 3, 48, 48), np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    every = np.arange(4)
    batch = Batch(images=images, labels=every, weights=np.ones(4, np.float32), indices=every, targets=soft)
    for form in ((), STAGES, ("layer3", "layer4")):
        said = {"dataset": {"use": "none"}, "optimizer": {"use": "sgd", "lr": 0.01}}
        said |= {"train": {"batch_size": 4, "epochs": 10}, "schedule": {"use": "cosine", "phase_warmup": 0.0}}
        recipe = Recipe.model_validate_json(json.dumps(said))
        stages = {name: cell for name, cell in zip(network("same").names, network("same").stages, strict=False)}
        net = Network(stages, heads.build_head(recipe.head, design.NANO.widths[-1], 3, 0))
        trainer = Trainer(recipe, net, features=design.NANO.widths[-1], images=4, amp="off")
        trainer.enter(Phase(number=1, first=1, last=9, trainable=net.names), 0, in_form(net, form))
        # After the first step, since a rounding that flips one ReLU changes the gradients of the next by 2 %, in
        # convolutions alone as well (images scaled by 1.000001).
        losses = [trainer.step([batch], 1, 0)]
        after = {name: array.copy() for name, array in read_values(net.get_parameters()).items()}
        losses += [trainer.step([batch], 1, number) for number in (1, 2)]
        trained.append((losses, after))
    expected, before = trained[0]
    for found, after in trained[1:]:
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert {name: each.shape for name, each in after.items()} == {name: each.shape for name, each in before.items()}
        for name, array in before.items():
            assert float(np.abs(after[name] - array).max()) <= 1e-4 * max(float(np.abs(array).max()), 1e-3), name


def test_the_old_names_of_its_fields_are_deprecated() -> None:
    from dataclasses import replace

    from finetune import Backbone

    with pytest.warns(DeprecationWarning, match=r"Backbone\.products is deprecated .* use matmul_form"):
        made = Backbone(name="mine", build=dict, stages=("stem",), features=1, products=dict)  # type: ignore[call-arg]
    assert made.matmul_form is dict
    assert replace(made, name="other").matmul_form is dict
    with pytest.warns(DeprecationWarning, match=r"Backbone\.products_avx2 is deprecated"):
        assert made.products_avx2 == ()  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'product'"):
        made.product  # type: ignore[attr-defined]  # noqa: B018
