"""The split by hash: an image stays on its side, whichever others come, go or are renamed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.splits import compute_position, make_key, split_by_hash, split_by_position

CLASSES = ("ant", "bee", "cow")
Images = dict[str, str]  # content: class


def held_back(images: Images, share: float = 0.2, seed: int = 42) -> set[str]:
    """Return the contents that go to validation."""
    contents = list(images)
    labels = np.array([CLASSES.index(images[content]) for content in contents], np.int64)
    train, valid = split_by_hash(labels, contents, CLASSES, share, seed)
    assert sorted([*train, *valid]) == list(range(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(valid) > 0).all()
    return {contents[index] for index in valid}


def is_minimum(images: Images, name: str, share: float, seed: int) -> bool:
    """Tell whether the minimum decides in a class: by their hashes alone all of it, or nothing, would be held back."""
    key = make_key(seed, name)
    below = [compute_position(content, key) < share for content, own in images.items() if own == name]
    return all(below) or not any(below)


some = st.dictionaries(st.text(min_size=1, max_size=6), st.sampled_from(CLASSES), max_size=30)
shares, seeds = st.floats(0.01, 0.99), st.integers(0, 2**32 - 1)


@settings(max_examples=60)
@given(some, some, shares, seeds)
def test_an_image_stays_on_its_side_when_others_come_and_go(
    before: Images, more: Images, share: float, seed: int
) -> None:
    after = {**more, **before}
    first, then = held_back(before, share, seed), held_back(after, share, seed)
    for content in before:
        name = before[content]
        if not is_minimum(before, name, share, seed) and not is_minimum(after, name, share, seed):
            assert (content in first) == (content in then)


@settings(max_examples=60)
@given(some, shares, seeds)
def test_each_class_has_both_sides_if_it_can(images: Images, share: float, seed: int) -> None:
    valid = held_back(images, share, seed)
    for name in CLASSES:
        own = {content for content in images if images[content] == name}
        assert (0 < len(own & valid) < len(own)) if len(own) > 1 else not own & valid
        if not is_minimum(images, name, share, seed):
            assert own & valid == {
                content for content in own if compute_position(content, make_key(seed, name)) < share
            }


def test_order_names_and_numbers_of_classes_do_not_matter() -> None:
    contents = [f"{number}" for number in range(60)]
    labels = np.arange(60) % 3
    first = {contents[i] for i in split_by_hash(labels, contents, CLASSES, 0.2, 1)[1]}
    order = np.random.default_rng(0).permutation(60)
    renumbered = (labels[order] + 1) % 3
    classes = tuple(CLASSES[(number - 1) % 3] for number in range(3))
    again = split_by_hash(renumbered, [contents[i] for i in order], classes, 0.2, 1, lambda index: "renamed")[1]
    assert {contents[order[i]] for i in again} == first


def test_the_share_is_met_on_average_and_the_seed_decides() -> None:
    images = {f"{number}": "ant" for number in range(5000)}
    first, other = held_back(images, 0.2, 1), held_back(images, 0.2, 2)
    assert abs(len(first) - 1000) < 120
    assert abs(len(other) - 1000) < 120
    assert abs(len(first & other) - 200) < 60


def test_a_larger_share_holds_back_what_a_smaller_one_does() -> None:
    images = {f"{number}": "ant" for number in range(200)}
    assert held_back(images, 0.1) < held_back(images, 0.3)


def test_the_split_of_a_version_stays_the_same() -> None:
    images = {f"{number}": CLASSES[number % 2] for number in range(20)}
    assert sorted(held_back(images), key=int) == ["2", "13"]


def test_copies_stay_together_and_single_images_in_training() -> None:
    hashes = [str(number % 10) for number in range(40)]
    _, valid = split_by_hash(np.zeros(40, np.int64), hashes, CLASSES, 0.3, 3)
    sides = {hashes[index] for index in valid}
    assert len(valid) == 4 * len(sides)
    assert split_by_hash(np.zeros(4, np.int64), ["same"] * 4, CLASSES, 0.3, 3)[1].tolist() == []


def test_images_without_a_hash_are_told_apart_by_name() -> None:
    names = [f"{number}.jpg" for number in range(50)]
    labels = np.zeros(50, np.int64)
    _, valid = split_by_hash(labels, [None] * 50, CLASSES, 0.2, 1, names.__getitem__)
    kept = names[10:]
    _, fewer = split_by_hash(labels[10:], [None] * 40, CLASSES, 0.2, 1, kept.__getitem__)
    assert {names[i] for i in valid} & {*kept} == {kept[i] for i in fewer}


def test_ten_thousand_classes() -> None:
    names = [f"class {number}" for number in range(10_000)]
    train, valid = split_by_hash(np.arange(20_000) // 2, [None] * 20_000, names, 0.2, 1)
    assert len(train) == len(valid) == 10_000


@pytest.mark.parametrize(("share", "drawn"), [(0.2, [2, 5, 1, 1, 2]), (0.3, [3, 8, 1, 1, 2]), (0.001, [1] * 5)])
def test_the_split_of_earlier_versions_draws_a_rounded_share(share: float, drawn: list[int]) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [10, 25, 3, 2, 8]))
    _, valid = split_by_position(labels, [None] * len(labels), share, 1)
    assert np.bincount(labels[valid]).tolist() == drawn


def test_the_split_of_earlier_versions_stays_the_same() -> None:
    _, valid = split_by_position(np.arange(20) % 2, [None] * 20, 0.2, 42)
    assert valid.tolist() == [6, 9, 11, 14]
