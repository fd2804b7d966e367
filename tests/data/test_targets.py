"""Targets: smoothed labels, class weights, and blends that lose nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.targets import balance_weights, compute_class_weights, make_soft_targets, mix
from finetune.errors import DataError, UsageError

ONES = np.ones(3, np.float32)


def generator(step: int, seed: int = 7) -> np.random.Generator:
    """Return the generator of a step, as the trainer makes it."""
    return np.random.Generator(np.random.Philox(key=[seed, step]))


def batch(size: int = 8, padding: int = 2, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return images that hold their row's number everywhere, and their targets; the last rows are padding."""
    images = np.broadcast_to(np.arange(size, dtype=np.float32)[:, None, None, None], (size, 3, 16, 16)).copy()
    weights = (np.arange(size) < size - padding).astype(np.float32)
    return images, make_soft_targets(np.arange(size) % classes, weights, classes, 0.1, None)


def test_rows_without_smoothing_are_one_hot() -> None:
    targets = make_soft_targets(np.array([2, 0, 1]), ONES, 4, 0.0, None)
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, np.eye(4, dtype=np.float32)[[2, 0, 1]])


def test_smoothing_spreads_over_all_classes() -> None:
    targets = make_soft_targets(np.array([2, 0, 1]), ONES, 4, 0.2, None)
    np.testing.assert_allclose(targets[0], [0.05, 0.05, 0.85, 0.05], rtol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, rtol=1e-6)


def test_padding_and_class_weights_scale_rows() -> None:
    weights = np.array([1, 1, 0], np.float32)
    targets = make_soft_targets(np.array([2, 0, 1]), weights, 3, 0.3, np.array([0.5, 1, 4], np.float32))
    np.testing.assert_allclose(targets.sum(axis=1), [4, 0.5, 0], rtol=1e-6)


def test_the_loss_is_the_cross_entropy_of_the_real_rows() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 4))
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = make_soft_targets(np.array([2, 0, 1]), np.array([1, 1, 0], np.float32), 4, 0.0, None)
    assert -(targets * log_softmax).sum() / 2 == pytest.approx(-(log_softmax[0, 2] + log_softmax[1, 0]) / 2)


@pytest.mark.parametrize("labels", [[0, 4], [-1, 0], [-100, 0]])
def test_labels_out_of_range_never_reach_a_kernel(labels: list[int]) -> None:
    with pytest.raises(DataError, match="do not fit 4 classes"):
        make_soft_targets(np.array(labels), np.ones(2, np.float32), 4, 0.0, None)


def test_balanced_weights_make_all_classes_count_the_same() -> None:
    labels = np.repeat([0, 1, 2], [10, 30, 60])
    weights = balance_weights(labels, 4)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights[:3] * [10, 30, 60], 100 / 3, rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1.0)
    assert weights[3] == 0.0


def test_class_weights_as_a_recipe_gives_them() -> None:
    labels = np.array([0, 0, 1])
    assert compute_class_weights("none", labels, ("a", "b")) is None
    np.testing.assert_array_equal(compute_class_weights("auto", labels, ("a", "b")), balance_weights(labels, 2))  # type: ignore[arg-type]
    np.testing.assert_array_equal(compute_class_weights({"b": 3.0}, labels, ("a", "b")), [1, 3])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"loss\.class_weights: no class named 'rosse'; did you mean 'rose'"):
        compute_class_weights({"rosse": 2.0}, labels, ("rose", "lily"))


def test_off_means_untouched() -> None:
    images, targets = batch()
    assert mix(images, targets, mixup=0.0, cutmix=0.0, rng=generator(1)) == (images, targets)
    alone = targets * (np.arange(8) == 0)[:, None]
    assert mix(images, alone, mixup=1.0, cutmix=1.0, rng=generator(1))[0] is images


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_blends_depend_on_the_generator_only_and_leave_the_batch_alone(mixup: float, cutmix: float) -> None:
    images, targets = batch()
    kept = images.copy(), targets.copy()
    first = mix(images, targets, mixup=mixup, cutmix=cutmix, rng=generator(3))
    second = mix(images, targets, mixup=mixup, cutmix=cutmix, rng=generator(3))
    other = mix(images, targets, mixup=mixup, cutmix=cutmix, rng=generator(4))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert (first[1] != other[1]).any()
    assert (images == kept[0]).all()
    assert (targets == kept[1]).all()


@settings(max_examples=100, deadline=None)
@given(
    step=st.integers(0, 10_000),
    padding=st.integers(0, 8),
    mixup=st.sampled_from([0.0, 0.2, 1.0]),
    cutmix=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_no_weight_is_lost_and_padding_stays_out(step: int, padding: int, mixup: float, cutmix: float) -> None:
    images, targets = batch(padding=padding)
    mixed, soft = mix(images, targets, mixup=mixup, cutmix=cutmix, rng=generator(step))
    real = 8 - padding
    np.testing.assert_array_equal(mixed[real:], images[real:])
    np.testing.assert_array_equal(soft[real:], 0.0)
    np.testing.assert_allclose(soft[:real].sum(axis=1), targets[:real].sum(axis=1), rtol=1e-5)
    assert (mixed[:real] <= max(real - 1, 0) + 1e-5).all()  # nothing came from padding, whose values are higher
    assert mixed.dtype == soft.dtype == np.float32
    assert mixed.flags.c_contiguous


def test_mixup_blends_images_as_it_blends_targets() -> None:
    images, targets = batch(padding=0)
    mixed, soft = mix(images, targets, mixup=1.0, cutmix=0.0, rng=generator(5))
    shares = np.linalg.lstsq(targets.T, soft.T, rcond=None)[0]
    assert np.ptp(mixed, axis=(1, 2, 3)).max() < 1e-5
    assert soft.shape == targets.shape
    assert shares.min() > -1e-5
    one, two = batch(size=2, padding=0)
    for step in range(20):
        mixed, soft = mix(one, two, mixup=1.0, cutmix=0.0, rng=generator(step))
        share = float(mixed[1, 0, 0, 0])  # of row 1, whose pixels are 1
        np.testing.assert_allclose(soft[1], share * two[1] + (1 - share) * two[0], atol=1e-6)


def test_cutmix_weighs_targets_by_the_pixels_pasted() -> None:
    images, targets = batch(size=2, padding=0)
    shares = []
    for step in range(40):
        mixed, soft = mix(images, targets, mixup=0.0, cutmix=1.0, rng=generator(step))
        share = float(mixed[1, 0].mean())
        assert set(np.unique(mixed)) <= {0.0, 1.0}
        assert (mixed[:, :1] == mixed).all()
        np.testing.assert_allclose(soft[1], share * targets[1] + (1 - share) * targets[0], atol=1e-6)
        shares.append(share)
    assert len(set(shares)) > 10


def test_both_are_drawn_when_both_are_on() -> None:
    images, targets = batch(size=2, padding=0)
    kinds = set()
    for step in range(40):
        mixed, _ = mix(images, targets, mixup=1.0, cutmix=1.0, rng=generator(step))
        kinds.add(bool(np.isin(mixed, [0.0, 1.0]).all()))
    assert kinds == {True, False}
