"""Features of a part: what is missing is computed, in whole chunks, of images that are still those of the scan."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune.components import ImageSpec
from finetune.data.labelled import Part
from finetune.data.loader import Loader
from finetune.data.scan import hash_array, hash_image
from finetune.errors import DataError, ResourceError
from finetune.features import features, store
from finetune.features.features import (
    FeatureLoader,
    TooLarge,
    convert_to_half,
    fill_table,
    group_runs,
    report_progress,
    round_features,
)
from finetune.features.store import Table
from finetune.network.engines import Engine
from tests.drawn import folder
from tests.features import tiny

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

COUNT, CHUNK = 22, 4
SPEC = ImageSpec(size=8, resize=8)


class Means:
    """A backend that computes the mean of each colour, and counts the images."""

    name, precision, factor = "means", "f32", 1.0

    def __init__(self) -> None:
        self.seen = 0

    def outputs(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for chunk in chunks:
            self.seen += len(chunk)
            yield chunk.mean((2, 3)) * np.float32(self.factor)

    def refresh(self) -> None: ...


def part(seed: int = 0) -> Part:
    pictures = [np.random.default_rng([seed, i]).integers(0, 256, (8, 8, 3), np.uint8) for i in range(COUNT)]
    hashes = [hash_array(each) for each in pictures]
    return Part(name="train", images=pictures, labels=np.arange(COUNT) % 3, source="drawn", hashes=hashes)


def loader(of: Part, size: int = CHUNK, *, train: bool = False, **more: Any) -> Loader:
    transforms = (tiny.Jitter(30),) if train else ()
    return Loader(of, SPEC, batch_size=size, workers=0, seed=3, transforms=transforms, train=train, **more)


class Case:
    """A table of two chunks a shard, and what is told while it is filled."""

    def __init__(self, folder: Path) -> None:
        self.backend, self.said, self.checks = Means(), [], 0
        self.table = Table(folder=folder, count=COUNT, shape=(3,), chunk=CHUNK)
        folder.mkdir(exist_ok=True)

    def fill(self, of: Part, view: int = 1, *, train: bool = False, stop: int = 99) -> int:
        def check() -> None:
            self.checks += 1
            if self.checks == stop:
                raise KeyboardInterrupt

        ordered = loader(of, train=train, shuffled=False)
        return fill_table(self.table, ordered, view, lambda: Engine(self.backend, CHUNK), self.said.append, check)

    def rows(self) -> np.ndarray:
        return self.table.read().take(np.arange(COUNT))


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(store, "SHARD_BYTES", 2 * 3 * CHUNK * 2)
    return Case(tmp_path / "table")


def expected(of: Part, view: int = 1, *, train: bool = False) -> np.ndarray:
    with closing(loader(of, COUNT, train=train, shuffled=False).epoch(view)) as batches:
        return next(batches).images.mean((2, 3)).astype(np.float16).astype(np.float32)


@pytest.mark.parametrize(("view", "train"), [(1, False), (1, True), (2, True)])
def test_every_row_is_that_of_its_image(view: int, train: bool, case: Case) -> None:
    of = part()
    assert case.fill(of, view, train=train) == COUNT
    assert case.said == [8, 16, 22]
    assert np.array_equal(case.rows(), expected(of, view, train=train))
    assert case.fill(of, view, train=train) == 0
    assert case.backend.seen == 24


@pytest.mark.parametrize("gone", [{0}, {1}, {2}, {0, 2}, {1, 2}, {0, 1, 2}])
def test_only_what_is_missing_is_computed(gone: set[int], case: Case) -> None:
    of = part()
    case.fill(of, 2, train=True)
    before, case.backend.seen = case.rows(), 0
    for number in gone:
        case.table.path_of_shard(number).unlink()
    assert case.fill(of, 2, train=True) == sum(len(case.table.list_shards()[number]) for number in gone)
    assert case.backend.seen <= 8 * len(gone) + 2 * CHUNK  # some chunks may be under way already
    assert np.array_equal(case.rows(), before)


def test_stopping_keeps_whole_shards_and_the_rest_follows(case: Case) -> None:
    of = part()
    with pytest.raises(KeyboardInterrupt):
        case.fill(of, stop=3)
    assert case.table.list_missing() == [1, 2]
    case.checks = 10
    assert case.fill(of) == COUNT - 8
    assert np.array_equal(case.rows(), expected(of))


def test_an_array_that_changed_is_refused(case: Case) -> None:
    of = part()
    of.images[9][0, 0, 0] ^= 1
    with pytest.raises(DataError, match=r"'drawn\[9\]' changed since the run started") as caught:
        case.fill(of)
    assert caught.value.exit_code == 3
    assert case.table.list_missing() == [1, 2]


@pytest.mark.parametrize("act", ["replace", "remove", "empty"])
def test_a_file_that_changed_is_refused(act: str, case: Case, tmp_path: Path) -> None:
    paths = sorted(folder(tmp_path / "photos", each=8, size=8).rglob("*.jpg"))[:COUNT]
    of = Part(name="x", images=paths, labels=np.arange(COUNT) % 3, hashes=[hash_image(path) for path in paths])
    if act == "replace":
        paths[9].write_bytes(paths[10].read_bytes())
    elif act == "remove":
        paths[9].unlink()
    else:
        paths[9].write_bytes(b"")
    with pytest.raises(DataError, match=paths[9].name):
        case.fill(of)
    assert 1 in case.table.list_missing()


def test_a_full_disk_keeps_what_was_written(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise OSError(28, "No space left on device")

    write = Table.write

    def once(self: Table, number: int, rows: np.ndarray) -> None:
        if number == 1:
            monkeypatch.setattr(features_atomic(), "_sync", refuse)
        write(self, number, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(Table, "write", once)
    with pytest.raises(ResourceError, match="the disk is full"):
        case.fill(part())
    assert case.table.list_missing() == [1, 2]
    assert not list(case.table.folder.glob(".*"))


def features_atomic() -> Any:
    from finetune.files import atomic

    return atomic


@pytest.mark.parametrize("value", [7e4, -7e4, np.inf, np.nan])
def test_what_float16_cannot_hold_is_not_kept(value: float, case: Case) -> None:
    with pytest.raises(TooLarge, match="float16"):
        convert_to_half(np.array([1.0, value], np.float32))
    case.backend.factor = value * 1e3
    with pytest.raises(TooLarge):
        case.fill(part())
    assert case.table.list_missing() == [0, 1, 2]


def test_rounding_is_what_keeping_does() -> None:
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    assert np.array_equal(round_features(values), values.astype(np.float16).astype(np.float32))
    assert np.array_equal(round_features(round_features(values)), round_features(values))
    assert round_features(values).dtype == np.float32


def test_runs_of_numbers() -> None:
    assert group_runs([]) == []
    assert group_runs([3]) == [[3]]
    assert group_runs([0, 1, 2, 5, 7, 8]) == [[0, 1, 2], [5], [7, 8]]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("size", [1, 5, 22, 30])
def test_kept_features_come_in_the_order_of_the_images(size: int, train: bool, case: Case) -> None:
    of = part()
    case.fill(of)
    kept = FeatureLoader(part=of, kept=case.table.read(), batch_size=size, seed=3, train=train)
    for epoch, start in ((1, 0), (2, 0), (2, 1)):
        images = list(loader(of, size, train=train).epoch(epoch, start))
        found = list(kept.epoch(epoch, start))
        assert len(found) == len(images)
        for one, other in zip(found, images, strict=True):
            for name in ("labels", "weights", "indices"):
                assert np.array_equal(getattr(one, name), getattr(other, name)), name
                assert getattr(one, name).dtype == getattr(other, name).dtype
            assert np.array_equal(one.images, case.rows()[one.indices])


def test_progress_is_told_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(features.time, "monotonic", lambda: now[0])
    messages: list[str] = []
    said = report_progress("the train images, view 1 of 2", 4000, messages.append)
    for now[0], done in ((9.0, 100), (11.0, 1100), (12.0, 1200), (22.0, 2200)):
        said(done)
    assert messages == [
        "features of the train images, view 1 of 2: 1,100 of 4,000 images, 100 a second",
        "features of the train images, view 1 of 2: 2,200 of 4,000 images, 100 a second",
    ]
