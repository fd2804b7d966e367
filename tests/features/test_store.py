"""Features on disk: what is written comes back, and what is damaged does not."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import ResourceError
from finetune.features import store
from finetune.features.store import LARGE_ROW, SEAL, CachedRows, Table

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_BYTES", 200)


def table(folder: Path, count: int = 30, shape: tuple[int, ...] = (3, 2, 2), chunk: int = 4) -> Table:
    return Table(folder=folder, count=count, shape=shape, chunk=chunk)


def rows(of: Table) -> NDArray[np.float16]:
    return np.random.default_rng(0).normal(size=(of.count, *of.shape)).astype(np.float16)


def written(folder: Path, **said: object) -> tuple[Table, NDArray[np.float16]]:
    made = table(folder, **said)  # type: ignore[arg-type]
    whole = rows(made)
    for number, shard in enumerate(made.list_shards()):
        made.write(number, whole[shard.start : shard.stop])
    return made, whole


@pytest.mark.parametrize("shape", [(5,), (3, 2, 2), (100, 2)])
@pytest.mark.parametrize("count", [1, 8, 30])
def test_rows_come_back_in_the_order_asked_for(shape: tuple[int, ...], count: int, tmp_path: Path) -> None:
    made, whole = written(tmp_path, count=count, shape=shape)
    assert made.list_missing() == []
    kept, order = made.read(), np.random.default_rng(1).integers(0, count, 50)
    found = kept.take(order)
    assert found.dtype == np.float32
    assert np.array_equal(found, whole[order].astype(np.float32))
    assert kept.take(order[:0]).shape == (0, *shape)
    found += 1  # is the caller's own
    assert np.array_equal(kept.take(order), whole[order].astype(np.float32))


@given(
    count=st.integers(1, 500), chunk=st.sampled_from([1, 4, 16, 64]), width=st.integers(1, 300), size=st.integers(1, 9)
)
def test_shards_hold_a_multiple_of_the_chunk_and_every_row_once(count: int, chunk: int, width: int, size: int) -> None:
    made = Table(folder=None, count=count, shape=(width, size), chunk=chunk)  # type: ignore[arg-type]
    shards = made.list_shards()
    assert [row for shard in shards for row in shard] == list(range(count))
    assert made.rows % chunk == 0
    assert all(shard.start % chunk == 0 and len(shard) == made.rows for shard in shards[:-1])
    assert made.rows == chunk or made.rows * width * size * 2 <= store.SHARD_BYTES


def test_a_table_takes_what_it_says(tmp_path: Path) -> None:
    made, _ = written(tmp_path)
    assert len(made.list_shards()) == 4
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == made.count * 2 * int(
        np.prod(made.shape)
    ) + SEAL * len(made.list_shards())
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"0000{n}.f16" for n in range(4)]


def test_a_flipped_bit_in_any_byte_is_found_and_the_shard_made_anew(tmp_path: Path) -> None:
    made, whole = written(tmp_path, shape=(2,), count=40)
    good = made.path_of_shard(0).read_bytes()
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        made.path_of_shard(0).write_bytes(bytes(bad))
        assert made.list_missing() == [0], place
        assert not made.path_of_shard(0).exists()
    made.write(0, whole[: len(made.list_shards()[0])])
    assert made.path_of_shard(0).read_bytes() == good
    assert made.list_missing() == []


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:1],
        lambda data: data[:-1],
        lambda data: data[:-SEAL],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"\0",
        lambda data: data + data,
        lambda data: bytes(len(data)),
        lambda data: data[: -SEAL - 2] + hashlib.blake2b(data[: -SEAL - 2], digest_size=SEAL).digest(),
    ],
    ids=["empty", "byte", "cut", "unsealed", "half", "longer", "twice", "zeros", "fewer rows"],
)
def test_what_is_not_the_shard_is_missing(number: int, damage: object, tmp_path: Path) -> None:
    made, whole = written(tmp_path)
    good = made.path_of_shard(number).read_bytes()
    made.path_of_shard(number).write_bytes(damage(good))  # type: ignore[operator]
    assert made.list_missing() == [number]
    shard = made.list_shards()[number]
    made.write(number, whole[shard.start : shard.stop])
    assert np.array_equal(made.read().take(np.arange(30)), whole.astype(np.float32))


def test_a_table_of_another_shape_or_length_believes_nothing(tmp_path: Path) -> None:
    made, _ = written(tmp_path)
    assert table(tmp_path, shape=(3, 2, 3)).list_missing()
    made, _ = written(tmp_path)
    assert table(tmp_path, count=29).list_missing() == [0, 1, 2, 3]
    made, _ = written(tmp_path)
    assert table(tmp_path, chunk=16).list_missing() == [0, 1]
    made, _ = written(tmp_path)
    made.path_of_shard(2).unlink()
    assert made.list_missing() == [2]
    assert table(tmp_path / "gone").list_missing() == [0, 1, 2, 3]


def test_shards_that_changed_places_are_missing(tmp_path: Path) -> None:
    made, _ = written(tmp_path)
    made.path_of_shard(0).rename(tmp_path / "spare")
    made.path_of_shard(1).rename(made.path_of_shard(0))
    (tmp_path / "spare").rename(made.path_of_shard(1))
    assert made.list_missing() == [0, 1]


def test_a_folder_in_place_of_a_shard_is_a_disk_that_refuses(tmp_path: Path) -> None:
    made, whole = written(tmp_path)
    made.path_of_shard(1).unlink()
    made.path_of_shard(1).mkdir()
    assert made.list_missing() == [1]
    with pytest.raises(ResourceError, match=r"00001\.f16"):
        made.write(1, whole[8:16])
    assert not list(tmp_path.glob(".*"))


def test_many_rows_are_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, whole = written(tmp_path)
    assert made.read().maps == []
    monkeypatch.setattr(store, "HELD_BYTES", 0)
    kept = made.read()
    assert np.array_equal(kept.take(np.arange(29, -1, -1)), whole[::-1].astype(np.float32))
    for shard, mapped in zip(kept.shards, kept.maps, strict=True):
        assert np.shares_memory(shard, np.frombuffer(mapped, np.uint8))
        assert not shard.flags.writeable


def test_pages_of_large_rows_are_let_go_of_and_read_again(tmp_path: Path) -> None:
    made = Table(folder=tmp_path, count=3, shape=(LARGE_ROW,), chunk=1)
    whole = np.random.default_rng(0).standard_normal((3, LARGE_ROW)).astype(np.float16)
    for number in range(3):
        made.write(number, whole[number : number + 1])
    kept = made.read()
    for _ in range(2):
        assert np.array_equal(kept.take(np.array([2, 0, 1])), whole[[2, 0, 1]].astype(np.float32))


def test_what_is_open_stays_readable_when_its_files_are_dropped(tmp_path: Path) -> None:
    made, whole = written(tmp_path)
    kept: CachedRows = made.read()
    for path in tmp_path.iterdir():
        path.unlink()
    assert np.array_equal(kept.take(np.arange(30)), whole.astype(np.float32))
