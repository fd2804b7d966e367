"""The stratified split: a share of each class, drawn by the seed, never a whole class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.splits import stratified


def labels_of(counts: list[int]) -> np.ndarray:
    """Return labels in mixed order, so many of each class."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=8), st.floats(0.001, 0.999), st.integers(0, 2**32 - 1))
def test_every_image_is_on_one_side_and_no_class_is_lost(counts: list[int], share: float, seed: int) -> None:
    labels = labels_of(counts)
    train, valid = stratified(labels, [None] * len(labels), share, seed)
    assert sorted([*train, *valid]) == list(range(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(valid) > 0).all()
    for label, count in enumerate(counts):
        drawn = int((labels[valid] == label).sum())
        assert drawn == (min(max(int(count * share + 0.5), 1), count - 1) if count > 1 else 0)


@pytest.mark.parametrize(("share", "drawn"), [(0.2, [2, 5, 1, 1, 2]), (0.3, [3, 8, 1, 1, 2]), (0.001, [1] * 5)])
def test_shares_are_rounded(share: float, drawn: list[int]) -> None:
    labels = labels_of([10, 25, 3, 2, 8])
    _, valid = stratified(labels, [None] * len(labels), share, 1)
    assert np.bincount(labels[valid]).tolist() == drawn


def test_the_seed_decides() -> None:
    labels = labels_of([30, 40])
    first, again, other = (stratified(labels, [None] * 70, 0.2, seed)[1].tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_the_draw_of_a_version_stays_the_same() -> None:
    _, valid = stratified(np.arange(20) % 2, [None] * 20, 0.2, 42)
    assert valid.tolist() == [6, 9, 11, 14]


def test_copies_stay_together() -> None:
    labels = np.zeros(40, np.int64)
    hashes = [str(i % 10) for i in range(40)]
    _, valid = stratified(labels, hashes, 0.3, 3)
    assert len(valid) == 12
    assert len({hashes[i] for i in valid}) == 3


def test_ten_thousand_classes() -> None:
    train, valid = stratified(np.arange(20_000) // 2, [None] * 20_000, 0.2, 1)
    assert len(train) == len(valid) == 10_000
