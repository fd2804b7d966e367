"""Folds and groups of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.fitting import folds
from finetune.fitting.folds import assign_folds, group_images
from tests.fitting.samples import draw_features

FOLDS_0 = [3, 2, 0, 4, 1, 2, 0, 3, 1, 4]  # as computed in 2026
NUMBERS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=80)


@given(NUMBERS, st.integers(2, 6), st.integers(0, 2**63))
def test_groups_stay_together(images: list[tuple[int, int]], count: int, seed: int) -> None:
    labels, groups = np.array(images, np.int64).T
    dealt = assign_folds(labels, groups, count, seed)
    assert dealt.min() >= 0
    assert dealt.max() < count
    for group in np.unique(groups):
        assert len(np.unique(dealt[groups == group])) == 1
    assert np.array_equal(dealt, assign_folds(labels, groups, count, seed))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(2, 6))
def test_classes_are_spread_evenly(labels: list[int], count: int) -> None:
    known = np.array(labels, np.int64)
    dealt = assign_folds(known, np.arange(len(known)), count, 0)
    for label in np.unique(known):
        sizes = np.bincount(dealt[known == label], minlength=count)
        assert sizes.max() - sizes.min() <= 1
    sizes = np.bincount(dealt, minlength=count)
    assert sizes.max() - sizes.min() <= 1 + len(np.unique(known))


def test_folds_depend_on_the_seed_alone() -> None:
    labels = np.repeat([0, 1], 5)
    assert assign_folds(labels, np.arange(10), 5, 0).tolist() == FOLDS_0
    assert assign_folds(labels, np.arange(10), 5, 1).tolist() != FOLDS_0
    assert len(np.unique(assign_folds(np.arange(1000), np.arange(1000), 5, 0))) == 5


def test_no_images() -> None:
    nothing = np.zeros(0, np.int64)
    assert len(assign_folds(nothing, nothing, 5, 0)) == 0
    assert len(group_images([], np.zeros((0, 4), np.float32))) == 0


@pytest.mark.parametrize("rows", [200, 1500])
def test_near_duplicates_and_equal_files_are_one_group(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "BLOCK", 128)
    features, _ = draw_features(rows, 64, 7)
    features[rows - 1] = features[3]
    features[rows - 2] = features[5] + 1e-3
    hashes: list[str | None] = [None] * rows
    hashes[8] = hashes[11] = hashes[12] = "a"
    hashes[9] = "b"
    wanted = np.arange(rows)
    wanted[[rows - 1, rows - 2, 11, 12]] = 3, 5, 8, 8
    assert group_images(hashes, features).tolist() == wanted.tolist()


def test_equal_features_of_all_images_are_no_duplicates() -> None:
    assert group_images([None] * 5, np.ones((5, 3), np.float32)).tolist() == [0, 1, 2, 3, 4]


def test_many_images_are_compared_by_content_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "COMPARED", 10)
    features, _ = draw_features(20, 4, 2)
    features[4] = features[5]
    assert group_images(["x", "x", *[None] * 18], features).tolist() == [0, 0, *range(2, 20)]


def test_a_crowd_of_near_duplicates_is_one_group() -> None:
    features, _ = draw_features(300, 32, 5)
    features[100:200] = features[100] + 1e-3 * np.random.default_rng(0).normal(size=(100, 32))
    wanted = np.arange(300)
    wanted[100:200] = 100
    assert group_images([None] * 300, features).tolist() == wanted.tolist()
