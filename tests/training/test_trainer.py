"""The training step: its arithmetic against plain numpy, its freezing, its repeatability."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from finetune.data import targets
from finetune.data.loader import Batch
from finetune.machine import device
from finetune.network import heads
from finetune.recipe.models import Recipe
from finetune.training.optimizers import START, LossScale
from finetune.training.phases import Phase

pytestmark = pytest.mark.once

IMAGES = np.random.default_rng(0).normal(size=(12, 3, 4, 4)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, 12)


@pytest.fixture(scope="module", autouse=True)
def mindspore() -> None:
    device.set_up(device="cpu")


def recipe(**sections: Any) -> Recipe:
    """Return a recipe in which a run has nothing left to choose, and no phase warms up."""
    said: dict[str, Any] = {
        "dataset": {"use": "none"},
        "schedule": {"use": "constant", "phase_warmup": 0.0},
        "optimizer": {"use": "adamw", "lr": 1e-3},
        "train": {"epochs": 10, "batch_size": 12},
    }
    for name, section in sections.items():
        said[name] = {**said.get(name, {}), **section}
    return Recipe.model_validate_json(json.dumps(said))


def batch(rows: slice = slice(None), *, real: int | None = None) -> Batch:
    images, labels = IMAGES[rows], LABELS[rows]
    weights = np.ones(len(images), np.float32)
    weights[real:] = 0.0 if real is not None else 1.0
    soft = targets.make_soft_targets(labels, weights, 3, 0.0, None)
    return Batch(images=images, labels=labels, weights=weights, indices=np.arange(len(images)), targets=soft)


def trainer(said: Recipe, images: int = 12, *, amp: str = "off") -> Any:
    from mindspore import nn

    from finetune.network.network import Network
    from finetune.training.trainer import Trainer

    class Flat(nn.Cell):  # type: ignore[misc]
        def construct(self, x: Any) -> Any:
            return x.reshape((x.shape[0], -1))

    class Norm(nn.Cell):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(3)

        def construct(self, x: Any) -> Any:
            return self.bn(x)

    network = Network({"norm": Norm(), "flat": Flat()}, heads.build_head(said.head, 48, 3, said.seed))
    return Trainer(said, network, features=48, images=images, amp=amp)


def entered(said: Recipe, stages: tuple[str, ...] = ("head",), images: int = 12) -> Any:
    made = trainer(said, images)
    made.enter(Phase(number=1, first=1, last=9, trainable=stages))
    return made


def head(made: Any) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = (p.asnumpy().copy() for p in made.network.get_parameters_of(["head"]))
    return weight.astype(np.float64), bias.astype(np.float64)


def reference(weight: np.ndarray, bias: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return loss and gradients of the head; the frozen BatchNorm, fresh as it is, divides by sqrt(1 + eps)."""
    x = IMAGES.reshape(12, -1).astype(np.float64) / np.sqrt(1 + 1e-5)
    logits = x @ weight.T + bias
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    slope = (probabilities - np.eye(3)[LABELS]) / 12
    return float(-np.log(probabilities[np.arange(12), LABELS]).mean()), slope.T @ x, slope.sum(0)


def test_adamw_equals_its_formula() -> None:
    made = entered(recipe(optimizer={"use": "adamw", "lr": 0.01, "weight_decay": 0.1}))
    weight, bias = head(made)
    moments = [np.zeros_like(weight), np.zeros_like(bias)], [np.zeros_like(weight), np.zeros_like(bias)]
    for t in range(1, 4):
        loss, *gradients = reference(weight, bias)
        assert made.step([batch()], 1, 0) == pytest.approx(loss, rel=1e-5)
        weight = weight * (1 - 0.01 * 0.1)  # biases do not decay
        updated = []
        for i, (value, gradient) in enumerate(zip((weight, bias), gradients, strict=True)):
            moments[0][i] = 0.9 * moments[0][i] + 0.1 * gradient
            moments[1][i] = 0.999 * moments[1][i] + 0.001 * gradient**2
            first, second = moments[0][i] / (1 - 0.9**t), moments[1][i] / (1 - 0.999**t)
            updated.append(value - 0.01 * first / (np.sqrt(second) + 1e-8))
        weight, bias = updated
    np.testing.assert_allclose(head(made)[0], weight, rtol=1e-4, atol=5e-5)  # where a gradient is nearly 0
    np.testing.assert_allclose(head(made)[1], bias, rtol=1e-4, atol=1e-6)


def test_sgd_with_momentum_equals_its_formula() -> None:
    made = entered(recipe(optimizer={"use": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}))
    weight, bias = head(made)
    speed_w, speed_b = np.zeros_like(weight), np.zeros_like(bias)
    for _ in range(3):
        _, slope_w, slope_b = reference(weight, bias)
        made.step([batch()], 1, 0)
        speed_w, speed_b = 0.9 * speed_w + slope_w + 0.01 * weight, 0.9 * speed_b + slope_b
        weight, bias = weight - 0.1 * speed_w, bias - 0.1 * speed_b
    np.testing.assert_allclose(head(made)[0], weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(head(made)[1], bias, rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_common_norm_of_the_gradients() -> None:
    made = entered(
        recipe(optimizer={"use": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}, train={"clip_norm": 1e-3})
    )
    before = head(made)
    made.step([batch()], 1, 0)
    change = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(head(made), before, strict=True)))
    assert change == pytest.approx(1e-3, rel=1e-2)


def test_accumulated_batches_equal_one_large_batch() -> None:
    sgd = {"use": "sgd", "lr": 0.1}
    large = entered(recipe(optimizer=sgd))
    small = entered(recipe(optimizer=sgd, train={"batch_size": 4, "accumulate": 3}))
    for _ in range(2):
        loss = large.step([batch()], 1, 0)
        parts = [batch(slice(i, i + 4)) for i in (0, 4, 8)]
        assert small.step(parts, 1, 0) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(head(small)[0], head(large)[0], rtol=1e-4, atol=1e-6)


def test_padding_does_not_count() -> None:
    sgd = {"use": "sgd", "lr": 0.1}
    padded, exact = entered(recipe(optimizer=sgd)), entered(recipe(optimizer=sgd))
    assert padded.step([batch(real=5)], 1, 0) == pytest.approx(exact.step([batch(slice(5))], 1, 0), rel=1e-5)
    np.testing.assert_allclose(head(padded)[0], head(exact)[0], rtol=1e-4, atol=1e-6)


def test_the_moving_average_follows_the_weights() -> None:
    made = entered(recipe(train={"ema": 0.5}, optimizer={"use": "sgd", "lr": 0.1}))
    average = head(made)[0]
    for number in range(4):
        made.step([batch()], 1, number)
        decay = min(0.5, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * head(made)[0]
    np.testing.assert_allclose(made.read_weights()["head.fc.weight"], average, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_frozen_parameters_and_statistics_keep_every_bit(optimizer: str) -> None:
    made = entered(recipe(optimizer={"use": optimizer, "weight_decay": 0.1}))
    before = made.hash_frozen()
    assert set(before) == {"norm.bn.gamma", "norm.bn.beta", "norm.bn.moving_mean", "norm.bn.moving_variance"}
    for number in range(3):
        made.step([batch()], 1, number)
    assert made.hash_frozen() == before


def test_unfreezing_trains_what_was_frozen() -> None:
    made = entered(recipe())
    made.step([batch()], 1, 0)
    before = {p.name: p.asnumpy().copy() for p in made.network.get_parameters()}
    made.enter(Phase(number=2, first=2, last=9, trainable=made.network.names))
    made.step([batch()], 2, 0)
    for parameter in made.network.get_parameters():
        assert not np.array_equal(before[parameter.name], parameter.asnumpy()), parameter.name


def test_batch_norm_frozen_trains_gamma_but_not_the_statistics() -> None:
    made = entered(recipe(freeze={"use": "none", "batch_norm": "frozen"}), ("norm", "flat", "head"))
    before, gamma = made.hash_frozen(), made.network.get_parameters_of(["norm"])
    kept = {p.name: p.asnumpy().copy() for p in gamma}
    made.step([batch()], 1, 0)
    assert set(before) == {"norm.bn.moving_mean", "norm.bn.moving_variance"}
    assert made.hash_frozen() == before
    assert not np.array_equal(kept["norm.bn.gamma"], made.network.get_parameters_of(["norm"])[2].asnumpy())


def test_restoring_repeats_the_same_bits() -> None:
    said = recipe(head={"use": "mlp", "hidden": 8, "dropout": 0.5}, train={"mixup": 0.2, "ema": 0.9, "batch_size": 12})
    made = entered(said, ("norm", "flat", "head"))
    made.step([batch()], 1, 0)
    saved, updates = {name: array.copy() for name, array in made.read_arrays().items()}, made.updates
    first = [made.step([batch()], 1, number) for number in (1, 2)]
    made.enter(made.phase)
    made.restore(lambda part: {n[len(part) + 1 :]: a for n, a in saved.items() if n.startswith(f"{part}/")}, updates)
    assert [made.step([batch()], 1, number) for number in (1, 2)] == first


def test_layer_decay_slows_lower_stages() -> None:
    made = entered(recipe(optimizer={"use": "adamw", "lr": 1.0, "layer_decay": 0.5}), ("norm", "flat", "head"))
    made.step([batch()], 1, 0)
    assert made.compute_rates() == {"norm": 0.25, "flat": 0.5, "head": 1.0}


def test_dropout_masks_depend_on_seed_and_step_alone() -> None:
    section = recipe(head={"use": "linear", "dropout": 0.25}).head
    mask = heads.draw_dropout_mask(section, 1000, 4, 7, 3)
    assert np.array_equal(mask, heads.draw_dropout_mask(section, 1000, 4, 7, 3))
    assert not np.array_equal(mask, heads.draw_dropout_mask(section, 1000, 4, 7, 4))
    assert mask.mean() == pytest.approx(1.0, abs=0.05)
    assert heads.draw_dropout_mask(recipe().head, 1000, 4, 7, 3).shape == (1, 1)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_overflows_changes_only_the_scale_of_the_loss(accumulate: int) -> None:
    said = recipe(train={"batch_size": 12 // accumulate, "accumulate": accumulate, "ema": 0.9})
    batches = [batch(slice(start, start + 12 // accumulate)) for start in range(0, 12, 12 // accumulate)]
    made, plain = trainer(said, amp="O2"), entered(said)
    made.enter(Phase(number=1, first=1, last=9, trainable=("head",)))
    before = {name: array.copy() for name, array in made.read_arrays().items()}
    made.step([replace(each, images=each.images * np.float32(1e37)) for each in batches], 1, 0)
    assert all(np.array_equal(array, before[name]) for name, array in made.read_arrays().items())
    assert (made.updates, made.scaling) == (0, LossScale(value=START / 2, overflows=1))
    heard: list[str] = []
    assert [made.take_overflows(heard.append) for _ in range(2)] == [{"overflows": 1}] * 2
    assert heard == ["1 step overflowed in float16 and had no effect; the loss scale is now 512"]
    assert made.step(batches, 1, 0) == pytest.approx(plain.step(batches, 1, 0), rel=1e-6)
    for name, array in plain.read_arrays().items():
        np.testing.assert_allclose(made.read_arrays()[name], array, rtol=1e-5, atol=1e-7, err_msg=name)
