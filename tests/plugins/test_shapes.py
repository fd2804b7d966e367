"""The dataset ``shapes``: the same pictures at every reading, and flowers that must be learnt by their forms."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from finetune_plugins import shapes as drawing
from finetune_plugins.shapes import NAMES, Drawn, Shapes, build
from finetune_plugins.shapes_flowers import KINDS
from tests.clocks import least_processor_time

if TYPE_CHECKING:
    from finetune import Samples, Split


def drawn(split: Split = "train", **options: int) -> Samples:
    samples = build(Shapes(**options), split)
    assert samples is not None
    return samples


def stack(samples: Samples) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.stack([np.asarray(samples.images[i]) for i in range(len(samples))])


def test_sizes_and_labels() -> None:
    splits: list[Split] = ["train", "valid", "test"]
    assert [len(drawn(split)) for split in splits] == [1200, 300, 300]
    samples = drawn(train=25)
    assert samples.classes == NAMES == tuple(KINDS)
    assert list(samples.labels) == [*range(10), *range(10), *range(5)]
    image = samples.images[0]
    assert isinstance(image, np.ndarray)
    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8
    assert set(drawn(classes=3).labels) == {0, 1, 2}
    assert drawn(classes=3).classes == ("daisy", "tulip", "rose")


def test_splits_without_pictures_are_left_to_the_engine() -> None:
    assert build(Shapes(valid=0), "valid") is None
    assert build(Shapes(test=0), "test") is None
    for options in ({"train": 1}, {"size": 8}, {"classes": 1}, {"classes": 11}, {"valid": -1}):
        with pytest.raises(ValidationError):
            Shapes(**options)


@pytest.mark.parametrize("size", [16, 33, 64, 96, 224])
def test_any_size(size: int) -> None:
    for image in drawn(size=size, train=10).images:
        assert isinstance(image, np.ndarray)
        assert image.shape == (size, size, 3)
        assert image.std() > 10


def test_pictures_depend_on_seed_split_and_index_only() -> None:
    first, again = stack(drawn(train=40)), stack(drawn(train=60))
    assert np.array_equal(first, again[:40])
    assert not np.array_equal(first, stack(drawn(train=40, seed=8)))
    assert not np.array_equal(first[:20], stack(drawn("valid", valid=20)))
    assert len({image.tobytes() for image in first}) == 40


def test_reading_backwards_and_in_slices() -> None:
    images = drawn(train=20).images
    last = images[19]
    assert np.array_equal(np.asarray(images[-1]), np.asarray(last))
    assert np.array_equal(np.array(images[3:9:2]), stack(drawn(train=20))[3:9:2])
    for outside in (20, -21):
        with pytest.raises(IndexError):
            images[outside]
    assert len(list(images)) == 20


def test_callers_may_change_what_they_get() -> None:
    samples = drawn(train=10)
    before = np.asarray(samples.images[0]).copy()
    np.asarray(samples.images[0])[:] = 0
    assert np.array_equal(np.asarray(samples.images[0]), before)


def test_kept_pictures_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "CACHE_BYTES", 5 * 3 * 32 * 32)
    images = drawn(size=32, train=20).images
    assert isinstance(images, Drawn)
    once = np.stack([np.asarray(image) for image in images])
    assert len(images.kept) == 5
    assert np.array_equal(once, np.stack([np.asarray(image) for image in images]))


def test_several_threads_read_the_same() -> None:
    shared, expected = drawn(train=60).images, stack(drawn(train=60))
    wrong: list[int] = []

    def read(step: int) -> None:
        wrong.extend(i for i in range(59, -1, -step) if not np.array_equal(np.asarray(shared[i]), expected[i]))

    threads = [threading.Thread(target=read, args=(step,)) for step in (1, 1, 3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_drawing_is_fast() -> None:
    images = drawn(train=220).images
    fresh = iter(range(20, 220))  # an image that was drawn is kept
    bound = 50 * 0.006  # seconds; 50 * 0.0015 where this was written
    assert least_processor_time(lambda: [images[next(fresh)] for _ in range(50)], bound, tries=4) < bound


def test_colours_tell_little() -> None:
    def colours(samples: Samples) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        pixels = stack(samples).reshape(len(samples), -1, 3)
        bins = pixels // 64 @ np.array([16, 4, 1], np.uint8)
        counts = np.stack([np.bincount(row, minlength=64) / len(row) for row in bins])
        return np.concatenate([pixels.mean(axis=1), pixels.std(axis=1), counts], axis=1)

    train, valid = drawn(train=600), drawn("valid", valid=300)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    model.fit(colours(train), train.labels)
    assert model.score(colours(valid), valid.labels) < 0.5
