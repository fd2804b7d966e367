"""Whatever happens to the feature cache, no wrong feature is used, and the run ends in the same weights."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from finetune.features import entries, store
from finetune.machine import device
from tests.features import tiny
from tests.features.tiny import Made, run, shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

VIEWS = 2 * 24 + 6
recipe = partial(tiny.recipe, runner={"mode": "pynative"})  # nothing to compile, and the same numbers
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module", autouse=True)
def graph_mode() -> Iterator[None]:
    """Leave MindSpore to others as they expect it."""
    yield
    device.set_up(device="cpu")


@pytest.fixture(scope="module")
def cold(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Path]:
    top = tmp_path_factory.mktemp("cold")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_HOME", str(top / "home"))
        patch.setattr(store, "SHARD_BYTES", 1)
        return run(recipe(photos, top)), top / "home"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make shards of one chunk."""
    monkeypatch.setattr(store, "SHARD_BYTES", 1)


@pytest.fixture
def warm(cold: tuple[Made, Path], home: Path) -> Path:
    shutil.copytree(cold[1], home)
    return home


def same(made: Made, cold: tuple[Made, Path]) -> bool:
    assert made.weights == cold[0].weights
    assert made.lines == cold[0].lines
    return True


def test_shards_hold_4_images_here(warm: Path) -> None:
    assert len(shards(warm)) == 2 * 6 + 2


def flip(path: Path, place: int = 5) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << 3
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "anew"),
    [
        (flip, VIEWS),
        (lambda path: flip(path, -1), VIEWS),
        (lambda path: flip(path) if path.name == "00001.f16" else None, 2 * 4 + 2),
    ],
    ids=["bit", "seal", "second"],
)
def test_a_damaged_shard_is_made_anew(
    damage: Callable[[Path], Any], anew: int, warm: Path, cold: tuple[Made, Path], photos: Path, tmp_path: Path
) -> None:
    for path in shards(warm):
        damage(path)
    made = run(recipe(photos, tmp_path))
    assert same(made, cold)
    assert (made.features["computed"], made.features["reused"]) == (anew, VIEWS - anew)
    for path, other in zip(shards(warm), shards(cold[1]), strict=True):
        assert path.read_bytes() == other.read_bytes()
    assert run(recipe(photos, tmp_path)).features["computed"] == 0


def described(home: Path, **changes: Any) -> None:
    for path in tiny.about(home):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda home: [path.write_bytes(b"\0garbage") for path in tiny.about(home)],
        lambda home: described(home, about={}),
        lambda home: described(home, shape=[3]),
        lambda home: described(home, shape=[13]),
        lambda home: described(home, shape=[]),
        lambda home: described(home, seconds="1.0"),
        lambda home: described(home, shape=[10**15]),
    ],
    ids=["garbage", "other", "narrow", "wide", "none", "words", "huge"],
)
def test_a_damaged_description_is_not_believed(
    damage: Callable[[Path], Any], warm: Path, cold: tuple[Made, Path], photos: Path, tmp_path: Path
) -> None:
    damage(warm)
    assert same(run(recipe(photos, tmp_path)), cold)
    again = run(recipe(photos, tmp_path))
    assert same(again, cold)
    assert again.features["computed"] == 0


def test_a_shard_of_another_entry_with_its_description_is_not_believed(
    warm: Path, cold: tuple[Made, Path], photos: Path, tmp_path: Path
) -> None:
    """Folders that changed places, as after a restored backup."""
    first, second = (path.parent for path in tiny.about(warm) if len(list(path.parent.glob("*.f16"))) == 6)
    spare = first.with_name("spare")
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    assert same(run(recipe(photos, tmp_path)), cold)


@pytest.mark.parametrize("what", ["00000.f16", "00001.f16", "entry.json"])
def test_a_folder_where_a_file_should_be(
    what: str, warm: Path, cold: tuple[Made, Path], photos: Path, tmp_path: Path
) -> None:
    for path in (warm / "features").glob(f"*/{what}"):
        path.unlink()
        path.mkdir()
        (path / "something").touch()
    made = run(recipe(photos, tmp_path))
    assert same(made, cold)
    assert made.told("warning: features are not cached but computed in every epoch: ")


@pytest.mark.parametrize("place", ["home", "home/features"])
def test_a_file_where_the_cache_should_be(
    place: str, home: Path, cold: tuple[Made, Path], photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.touch()
    made = run(recipe(photos, tmp_path))
    assert same(made, cold)
    assert made.told("warning: features are not cached but computed in every epoch: ")
    assert made.features["computed"] == 0


def refusing(monkeypatch: pytest.MonkeyPatch, code: int, of: str, first: int = 1) -> list[str]:
    """Let the disk refuse what is written under a name, from the ``first`` time on."""
    met: list[str] = []
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if "/features/" in path and path.endswith(".tmp") and of in path:
            met.append(path)
            if len(met) >= first:
                raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    return met


@pytest.mark.parametrize("first", [1, 2, 5])
def test_a_full_disk_at_any_shard(
    first: int, cold: tuple[Made, Path], home: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusing(monkeypatch, errno.ENOSPC, ".f16", first) == []
    made = run(recipe(photos, tmp_path))
    assert same(made, cold)
    (message,) = made.told("warning: features are not cached but computed in every epoch: cannot write ")
    assert "the disk is full" in message
    assert len(shards(home)) == first - 1
    assert not [path for path in (home / "features").rglob("*.tmp")]
    monkeypatch.undo()
    monkeypatch.setenv("FINETUNE_HOME", str(home))
    monkeypatch.setattr(store, "SHARD_BYTES", 1)
    again = run(recipe(photos, tmp_path))
    assert same(again, cold)
    assert again.features["computed"] < VIEWS or first == 1


@pytest.mark.parametrize(
    ("code", "first", "text"),
    [(errno.ENOSPC, 1, "the disk is full"), (errno.EROFS, 1, "read-only"), (errno.EIO, 2, "reports an error")],
)
def test_a_disk_that_refuses_descriptions(
    code: int,
    first: int,
    text: str,
    cold: tuple[Made, Path],
    home: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusing(monkeypatch, code, "entry.json", first)
    made = run(recipe(photos, tmp_path))
    assert same(made, cold)
    assert text in made.told("warning: features are not cached but computed in every epoch: ")[0]


def test_a_disk_without_room_is_noticed_before(
    cold: tuple[Made, Path], home: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10**8))
    made = run(recipe(photos, tmp_path))
    assert same(made, cold)
    assert "GB more at" in made.told("warning: features are not cached but computed in every epoch: ")[0]
    assert not shards(home)


def test_a_folder_that_takes_no_files(
    cold: tuple[Made, Path], home: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune.files import atomic

    touch = atomic.Path.touch

    def refuse(self: Path, *args: Any, **more: Any) -> None:
        if "/features/" in str(self):
            raise PermissionError(errno.EACCES, "Permission denied")
        touch(self, *args, **more)

    monkeypatch.setattr(atomic.Path, "touch", refuse)
    made = run(recipe(photos, tmp_path))
    assert same(made, cold)
    assert "permission denied" in made.told("warning: features are not cached but computed in every epoch: ")[0]


def test_a_cache_that_is_too_small_is_said_and_streams(home: Path, photos: Path, tmp_path: Path) -> None:
    said = recipe(photos, tmp_path, cache={"max_gb": 1e-6})
    made, again = run(said), run(said)
    (message,) = made.told("features of the train images are ")
    assert "more than cache.max_gb=1e-06 allows" in message
    assert made.features["computed"] == 6  # those to evaluate on fit
    assert made.weights == again.weights
    assert made.lines == again.lines
    plain = run(recipe(photos, tmp_path, cache={"features": "off"}))
    assert made.weights == plain.weights
    nothing = run(recipe(photos, tmp_path, cache={"max_gb": 1e-9}))
    assert nothing.features["computed"] == 0
    assert nothing.lines == plain.lines


@pytest.mark.parametrize("sections", [{"cache": {"max_gb": 1e-6}}, {"train": {"mixup": 0.2}}], ids=["small", "mixed"])
def test_a_full_disk_changes_nothing_of_what_would_not_be_kept(
    sections: dict[str, Any], home: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = recipe(photos, tmp_path, inference={"precision": "fp32"}, **sections)
    plain = run(said)
    shutil.rmtree(home)
    refusing(monkeypatch, errno.ENOSPC, "")
    made = run(said)
    assert made.told("the disk is full")
    assert made.weights == plain.weights
    assert made.lines == plain.lines


def test_features_too_large_for_the_cache_are_streamed(home: Path, photos: Path, tmp_path: Path) -> None:
    said = {"backbone": {"scale": 100.0}, "optimizer": {"lr": 1e-8}}
    made = run(recipe(photos, tmp_path, **said))
    assert made.told("float16")
    assert made.features["computed"] == 0
    assert made.weights == run(recipe(photos, tmp_path, **said, cache={"features": "off"})).weights


def test_an_entry_that_others_drop_while_it_is_opened(
    cold: tuple[Made, Path], warm: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run makes room between the check of an entry and its opening."""
    read = store.Table.read

    def dropped(self: store.Table) -> store.CachedRows:
        entries.drop_entry(self.folder)
        return read(self)

    monkeypatch.setattr(store.Table, "read", dropped)
    assert same(run(recipe(photos, tmp_path)), cold)
