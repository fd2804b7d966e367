"""The loader: the same bits for any number of threads, nothing lost, nothing left hanging."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune.components import ImageSpec
from finetune.data import loader as loading
from finetune.data.images import decode, fit, normalise
from finetune.data.loader import Batch, Loader
from finetune.data.loading import Part
from finetune.errors import DataError, PluginError
from tests.clocks import LONGEST, wait_for

SPEC = ImageSpec(size=24, resize=28)


@pytest.fixture
def photos(tmp_path: Path) -> Part:
    """Return ten JPEGs of different sizes and colours."""
    paths = []
    for number in range(10):
        y, x = np.mgrid[0 : 30 + number, 0:40]
        pixels = np.stack([y * 5, x * 5, np.full_like(x, number * 25)], axis=-1).astype(np.uint8)
        paths.append(tmp_path / f"{number}.jpg")
        Image.fromarray(pixels).save(paths[-1])
    return Part(name="train", images=paths, labels=np.arange(10) % 3, hashes=["x"] * 10)


def flip(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image shifted and flipped at random."""
    rolled = np.roll(pixels, int(rng.integers(20)), axis=1)
    return rolled[:, ::-1] if rng.random() < 0.5 else rolled


def make(part: Part, **options: Any) -> Loader:
    """Return a loader for training unless told otherwise."""
    return Loader(part, SPEC, **{"batch_size": 4, "workers": 2, "seed": 5, "train": True, **options})


def collect(loader: Loader, epoch: int = 1, start: int = 0) -> list[Batch]:
    """Return the batches of an epoch and close the loader."""
    try:
        return list(loader.epoch(epoch, start))
    finally:
        loader.close()


def same(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    """Return whether two runs of batches are equal to the bit."""
    fields = ("images", "labels", "weights", "indices")
    pairs = list(zip(first, second, strict=True))
    return all(getattr(a, f).tobytes() == getattr(b, f).tobytes() for a, b in pairs for f in fields)


def threads() -> list[str]:
    """Return the names of loader threads that live."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("finetune-")]


@pytest.mark.parametrize("train", [True, False])
def test_bits_do_not_depend_on_the_number_of_threads(photos: Part, train: bool) -> None:
    transforms = (flip,) if train else ()
    runs = [collect(make(photos, workers=w, transforms=transforms, train=train), epoch=3) for w in (0, 1, 2, 4)]
    assert all(same(runs[0], run) for run in runs[1:])


def test_a_start_in_the_middle_gives_the_rest_and_reads_no_more(photos: Part) -> None:
    whole = collect(make(photos, transforms=(flip,)), epoch=2)
    seen: list[int] = []

    class Watched(Sequence[Any]):
        def __len__(self) -> int:
            return len(photos)

        def __getitem__(self, index: Any) -> Any:
            seen.append(index)
            return photos.images[index]

    part = Part(name="train", images=Watched(), labels=photos.labels)
    assert same(whole[2:], collect(make(part, transforms=(flip,)), epoch=2, start=2))
    assert sorted(seen) == sorted(whole[2].indices.tolist())
    assert collect(make(photos), epoch=2, start=3) == []


def test_training_covers_every_image_once_and_pads_with_the_first(photos: Part) -> None:
    loader = make(photos)
    assert loader.steps == 3
    batches = collect(loader)
    indices, weights = (np.concatenate([getattr(b, f) for b in batches]) for f in ("indices", "weights"))
    assert sorted(indices[:10]) == list(range(10))
    assert indices[10:].tolist() == indices[:2].tolist()
    assert weights.tolist() == [1.0] * 10 + [0.0] * 2
    for batch in batches:
        assert batch.images.shape == (4, 3, 24, 24)
        assert batch.images.dtype == batch.weights.dtype == np.float32
        assert batch.images.flags.c_contiguous
        assert batch.labels.dtype == batch.indices.dtype == np.int64
        np.testing.assert_array_equal(batch.labels, photos.labels[batch.indices])


def test_evaluation_is_in_order_and_pads_with_the_last(photos: Part) -> None:
    batches = collect(make(photos, train=False))
    indices = np.concatenate([batch.indices for batch in batches])
    assert indices.tolist() == [*range(10), 9, 9]
    assert batches[-1].weights.tolist() == [1, 1, 0, 0]
    assert (batches[-1].images[1:] == batches[-1].images[1]).all()
    expected = np.empty((3, 24, 24), np.float32)
    normalise(fit(decode(photos.images[6]), SPEC), SPEC, expected)
    np.testing.assert_array_equal(batches[1].images[2], expected)


def test_order_and_augmentation_change_with_epoch_and_seed(photos: Part) -> None:
    first, again, epoch, seed = (
        collect(make(photos, transforms=(flip,), seed=seed), epoch=epoch)
        for seed, epoch in ((5, 1), (5, 1), (5, 2), (6, 1))
    )
    assert same(first, again)
    assert [b.indices.tolist() for b in first] != [b.indices.tolist() for b in epoch]
    assert [b.indices.tolist() for b in first] != [b.indices.tolist() for b in seed]
    assert images_by_index(first)[0].tobytes() != images_by_index(epoch)[0].tobytes()


def images_by_index(batches: Sequence[Batch]) -> dict[int, np.ndarray]:
    """Return the images of batches by their index."""
    return {int(i): image for batch in batches for i, image in zip(batch.indices, batch.images, strict=True)}


def test_an_augmentation_depends_on_the_image_not_on_the_batch(photos: Part) -> None:
    small, large = (images_by_index(collect(make(photos, transforms=(flip,), batch_size=b))) for b in (2, 7))
    assert all(small[i].tobytes() == large[i].tobytes() for i in range(10))


def test_fewer_images_than_a_batch(photos: Part) -> None:
    few = photos.select(np.array([3, 4]), "train")
    (batch,) = collect(make(few, batch_size=7))
    assert batch.weights.tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert set(batch.indices) == {0, 1}
    (batch,) = collect(make(few, batch_size=7, train=False))
    assert batch.indices.tolist() == [0, 1, 1, 1, 1, 1, 1]


def test_batches_share_no_memory(photos: Part) -> None:
    batches = collect(make(photos))
    for i, first in enumerate(batches):
        for second in batches[i + 1 :]:
            assert not np.shares_memory(first.images, second.images)


def test_transforms_may_not_reach_the_dataset(photos: Part) -> None:
    arrays = [np.zeros((30, 30, 3), np.uint8) for _ in range(4)]
    part = Part(name="train", images=arrays, labels=np.zeros(4, np.int64))

    def scribble(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pixels += 1
        return pixels

    collect(make(part, transforms=(scribble,)))
    assert not any(array.any() for array in arrays)


@pytest.mark.parametrize("shape", [(24, 24), (48, 30), (10, 90), (1, 1)])
def test_what_transforms_leave_is_fitted(photos: Part, shape: tuple[int, int]) -> None:
    def shaped(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.full((*shape, 3), 200, np.uint8)

    (batch, *_) = collect(make(photos, transforms=(shaped,)))
    expected = (200 / 255 - np.array(SPEC.mean)) / SPEC.std
    np.testing.assert_allclose(batch.images[0, :, 3, 5], expected, rtol=1e-5)


def test_training_without_transforms_sees_what_evaluation_sees(photos: Part) -> None:
    train, valid = (images_by_index(collect(make(photos, train=train))) for train in (True, False))
    assert all(train[i].tobytes() == valid[i].tobytes() for i in range(10))


# Faults


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", ["deleted", "changed"])
def test_a_file_that_changed_since_the_scan_is_named(photos: Part, workers: int, fault: str) -> None:
    path = photos.images[7]
    assert isinstance(path, Path)
    loader = make(photos, workers=workers, train=False)
    list(loader.epoch(1))
    if fault == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError) as caught:
        list(loader.epoch(2))
    why = "does not exist" if fault == "deleted" else "is truncated"
    assert str(caught.value) == f"'{path}' {why}; it was readable when the run started"
    loader.close()
    assert threads() == []


def test_images_never_scanned_are_named_too(tmp_path: Path) -> None:
    part = Part(name="images", images=[tmp_path / "a.jpg"], labels=np.zeros(1, np.int64))
    with pytest.raises(DataError, match=r"a\.jpg' does not exist$"):
        collect(make(part, train=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_that_raises_is_named_with_the_image(photos: Part, workers: int) -> None:
    def broken(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        raise ZeroDivisionError("no way")

    loader = make(photos, workers=workers, transforms=(flip, broken))
    with pytest.raises(PluginError, match=r"augment\[1\] \(.*broken\) failed on '.*\.jpg': ZeroDivisionError: no way"):
        next(loader.epoch(1))
    loader.close()


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (np.zeros((3, 24, 24), np.float32), "an array of shape 3x24x24 and type float32"),
        (np.zeros((24, 24, 3), np.float32), "an array of shape 24x24x3 and type float32"),
        (np.zeros((24, 24), np.uint8), "an array of shape 24x24 and type uint8"),
        (np.zeros((24, 24, 4), np.uint8), "an array of shape 24x24x4 and type uint8"),
        (np.zeros((0, 24, 3), np.uint8), "an array of shape 0x24x3 and type uint8"),
        (None, "a NoneType"),
        ({"image": 1}, "a dict"),
    ],
)
def test_a_transform_that_returns_no_image_is_named(photos: Part, result: Any, what: str) -> None:
    class Odd:
        name = "odd"

        def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> Any:
            return result

    loader = make(photos, transforms=(Odd(),))
    with pytest.raises(PluginError) as caught:
        next(loader.epoch(1))
    message = str(caught.value)
    assert message.startswith(f"augment[0] (odd) returned {what} for '")
    assert message.endswith("return (height, width, 3) uint8; the engine normalises")
    loader.close()


def test_a_dataset_that_raises_in_a_thread_is_named() -> None:
    class Broken(Sequence[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: Any) -> Any:
            raise KeyError("gone")

    part = Part(name="train", images=Broken(), labels=np.zeros(3, np.int64), source="dataset 'x' train")
    with pytest.raises(PluginError, match=r"dataset 'x' train\[\d\] cannot be made: KeyError: 'gone'"):
        collect(make(part))


def test_an_error_comes_at_once_although_much_is_under_way(photos: Part) -> None:
    begun: list[int] = []

    def slow(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        begun.append(1)
        time.sleep(0.2)
        raise ValueError("first")

    many = photos.select(np.arange(10).repeat(50), "train")
    loader = make(many, batch_size=64, transforms=(slow,))
    with pytest.raises(PluginError, match="first"):
        next(loader.epoch(1))
    loader.close()
    assert len(begun) < 32  # of 500: half of the first batch, by two threads
    assert threads() == []


def test_a_disk_that_hangs_is_named(photos: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PATIENCE", 0.2)
    monkeypatch.setattr("finetune.data.pool.GRACE", 0.2)
    release, returned = threading.Event(), threading.Event()

    def hang(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        release.wait(LONGEST)
        returned.set()
        return pixels

    loader = make(photos, transforms=(hang,))
    with pytest.raises(DataError, match=r"\.jpg' timed out after 0 s while reading; check the disk"):
        next(loader.epoch(1))
    loader.close()
    assert not returned.is_set()  # the loader is closed while the disk still hangs
    release.set()


def test_an_iterator_left_early_stops_its_work(photos: Part) -> None:
    done = []

    def slow(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        time.sleep(0.02)
        done.append(1)
        return pixels

    many = photos.select(np.arange(10).repeat(20), "train")
    loader = make(many, batch_size=8, transforms=(slow,))
    for _ in loader.epoch(1):
        break
    gc.collect()
    loader.close()
    assert len(done) <= 8 * (loading.AHEAD + 1) + 2
    assert threads() == []


@pytest.mark.parametrize(("batch_size", "expected"), [(20, 60), (5, 35)], ids=["two batches", "32 images"])
def test_no_more_than_two_batches_or_32_images_are_read_ahead(photos: Part, batch_size: int, expected: int) -> None:
    read: list[int] = []

    def count(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        read.append(1)
        return pixels

    many = photos.select(np.arange(10).repeat(10), "train")
    loader = make(many, batch_size=batch_size, transforms=(count,))
    batches = loader.epoch(1)
    next(batches)
    wait_for(lambda: len(read) >= expected)
    time.sleep(0.3)  # in which more would be read
    assert len(read) == expected
    batches.close()
    loader.close()


def test_a_closed_loader_says_so(photos: Part) -> None:
    loader = make(photos)
    batches = loader.epoch(1)
    next(batches)
    loader.close()
    loader.close()
    with pytest.raises(RuntimeError, match="the loader is closed"):
        next(loader.epoch(2))
    assert threads() == []


def test_threads_end_with_a_loader_that_nobody_closes(photos: Part) -> None:
    loader = make(photos)
    list(loader.epoch(1))
    assert len(threads()) == 2
    del loader
    gc.collect()
    wait_for(lambda: threads() == [])


def test_two_epochs_at_once_do_not_mix(photos: Part) -> None:
    loader = make(photos, transforms=(flip,))
    pairs = list(zip(loader.epoch(1), loader.epoch(2), strict=True))
    loader.close()
    for epoch in (1, 2):
        assert same([pair[epoch - 1] for pair in pairs], collect(make(photos, transforms=(flip,)), epoch))


def test_empty_parts_and_odd_labels_are_refused(photos: Part) -> None:
    with pytest.raises(DataError, match="valid: no images to load"):
        make(Part(name="valid", images=[], labels=np.zeros(0, np.int64)))
    with pytest.raises(DataError, match="10 images need as many labels, each at least 0"):
        make(Part(name="valid", images=photos.images, labels=photos.labels - 1))
    with pytest.raises(DataError, match="10 images need as many labels, each at least 0"):
        make(Part(name="valid", images=photos.images, labels=photos.labels[:4]))


def test_open_files_and_memory_stay_flat(photos: Part) -> None:
    loader = make(photos, transforms=(flip,))
    list(loader.epoch(1))
    before = len(os.listdir("/proc/self/fd"))
    for epoch in range(2, 30):
        list(loader.epoch(epoch))
    assert len(os.listdir("/proc/self/fd")) <= before
    assert len(threads()) == 2
    loader.close()


def test_real_photos(flowers: Path) -> None:
    paths = sorted((flowers / "train").glob("*/*.jpg"))[::200]
    part = Part(name="train", images=paths, labels=np.zeros(len(paths), np.int64))
    runs = []
    for workers in (0, 2):
        loader = Loader(part, ImageSpec(), batch_size=16, workers=workers, seed=1, transforms=(flip,), train=True)
        runs.append(collect(loader))
    assert same(*runs)
    images = np.concatenate([batch.images for batch in runs[0]])
    assert abs(images.mean()) < 1.0
    assert 0.5 < images.std() < 2.0
