"""Entries of the feature cache: their names, their order of use, their locks, and room for more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from finetune.features import entries
from finetune.features.entries import Entry, locate_entry, make_room

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ABOUT: dict[str, Any] = {
    "versions": {"rules": 1, "mindspore": "2.10.0"},
    "trunk": {"stages": ["stem", "layer1"], "pooled": False, "weights": "00ff"},
    "image": {"size": 32, "mean": (0.1, 0.2, 0.3)},
    "view": "plain",
}
LARGE = 10**12

Usage = namedtuple("Usage", "total used free")


def never() -> None:
    raise AssertionError("not to be called")


def said(message: str) -> None:
    raise AssertionError(message)


@pytest.fixture(autouse=True)
def own(home: Path) -> Path:
    return home


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    else:
        yield path


@pytest.mark.parametrize("path", list(leaves(ABOUT)), ids=".".join)
def test_every_part_of_what_an_entry_is_about_names_it(path: tuple[str, ...]) -> None:
    changed = json.loads(json.dumps(ABOUT))
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = [at[path[-1]], 1]
    assert locate_entry(changed).folder != locate_entry(ABOUT).folder
    del at[path[-1]]
    assert locate_entry(changed).folder != locate_entry(ABOUT).folder


def test_the_name_is_the_same_in_every_order_and_process(home: Path) -> None:
    back = dict(reversed(ABOUT.items()))
    assert locate_entry(back) == locate_entry(ABOUT)
    assert locate_entry(json.loads(json.dumps(ABOUT))) == locate_entry(ABOUT)
    code = f"from finetune.features.entries import locate_entry; print(locate_entry({ABOUT!r}).folder)"
    env = {**os.environ, "PYTHONHASHSEED": "5", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(locate_entry(ABOUT).folder)
    assert locate_entry(ABOUT).folder.parent == home / "features"


def test_what_was_written_is_known() -> None:
    made = locate_entry(ABOUT)
    assert made.read() == {}
    made.folder.mkdir(parents=True)
    made.write((3, 4), None)
    assert made.read()["shape"] == [3, 4]
    assert made.read()["seconds"] is None
    made.write((3, 4), 2.5)
    assert made.read()["seconds"] == 2.5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "garbage",
        "[]",
        "null",
        "3",
        "{}",
        '"about"',
        "\udcff",
        "[" * 100_000,
        json.dumps({"about": {**ABOUT, "view": {"number": 1}}, "shape": [3], "seconds": 1.0}),
        json.dumps({"about": None, "shape": [3], "seconds": 1.0}),
        json.dumps({"about": ABOUT, "seconds": 1.0}),
        *(json.dumps({"about": ABOUT, "shape": s, "seconds": 1.0}) for s in (None, 3, "ab", [0], [-2], [1.5], ["3"])),
        *(json.dumps({"about": ABOUT, "shape": s, "seconds": 1.0}) for s in ([], [[3]], {"3": 1})),
        *(json.dumps({"about": ABOUT, "shape": [3], "seconds": s}) for s in ("1.0", [1], -1.0, {})),
        json.dumps({"about": ABOUT, "shape": [3], "seconds": float("nan")}),
    ],
    ids=lambda text: text.encode("ascii", "replace").decode()[-24:],
)
def test_a_description_that_is_not_its_own_is_not_believed(text: str) -> None:
    made = locate_entry(ABOUT)
    made.folder.mkdir(parents=True)
    (made.folder / entries.ABOUT).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert made.read() == {}
    made.write((3,), 1.0)
    assert made.read()["shape"] == [3]


def filled(name: str, size: int, used: float | None) -> Entry:
    made = locate_entry({"name": name})
    made.folder.mkdir(parents=True)
    (made.folder / "00000.f16").write_bytes(bytes(size))
    if used is not None:
        made.write((3,), 1.0)
        os.utime(made.folder / entries.ABOUT, (used, used))
    return made


def there(*made: Entry) -> list[bool]:
    return [each.folder.is_dir() for each in made]


def test_the_longest_unused_makes_room_and_no_more_than_needed() -> None:
    old, new, middle = filled("old", 1000, 10), filled("new", 1000, 30), filled("middle", 1000, 20)
    total = sum(entries.measure_size(each.folder) for each in (old, new, middle))
    assert make_room(500, total + 500, set()) == ""
    assert there(old, middle, new) == [True, True, True]
    assert make_room(500, total, set()) == ""
    assert there(old, middle, new) == [False, True, True]
    middle.use()
    assert make_room(1000, total - 900, set()) == ""
    assert there(old, middle, new) == [False, True, False]
    assert not list(entries.locate_cache().glob(".*"))


def test_what_was_never_complete_goes_first() -> None:
    old, broken = filled("old", 1000, 10), filled("broken", 1000, None)
    assert make_room(100, entries.measure_size(old.folder) + 500, set()) == ""
    assert there(old, broken) == [True, False]


def test_what_a_run_wants_itself_stays() -> None:
    own, other = filled("own", 1000, 10), filled("other", 1000, 20)
    assert make_room(1000, 2300, {own.folder}) == ""
    assert there(own, other) == [True, False]
    assert "cache.max_gb is" in make_room(5000, 2300, {own.folder})
    assert there(own) == [True]


def test_what_another_computes_stays() -> None:
    busy, idle = filled("busy", 1000, 10), filled("idle", 1000, 20)
    with busy.lock(said, never):
        problem = make_room(1500, 2300, set())
        assert "the features that other runs are computing fill cache.max_gb" in problem
        assert there(busy, idle) == [True, False]
    assert make_room(1500, 2300, set()) == ""
    assert there(busy) == [False]


def test_what_another_has_begun_counts_as_what_it_will_be() -> None:
    busy = filled("busy", 100, 10)
    busy.write((3,), None, 1000)
    with busy.lock(said, never):
        assert "the features that other runs are computing fill cache.max_gb" in make_room(1500, 2300, set())
    assert make_room(1000, 2300, {busy.folder}) == ""  # its own claim is what it asks for


def test_what_is_too_large_drops_nothing() -> None:
    kept = filled("kept", 1000, 10)
    assert make_room(5000, 4000, set())
    assert there(kept) == [True]


def test_a_disk_that_is_short_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries.shutil, "disk_usage", lambda path: Usage(LARGE, LARGE, 10**6))
    problem = make_room(10**9, LARGE, set())
    assert "they need 1 GB; free " in problem
    assert str(entries.locate_cache()) in problem


def test_a_disk_that_stays_short_costs_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others filled is not made less full by dropping what takes a kilobyte."""
    kept = filled("kept", 1000, 10)
    monkeypatch.setattr(entries.shutil, "disk_usage", lambda path: Usage(LARGE, LARGE, 10**6))
    assert make_room(10**9, LARGE, set())
    assert there(kept) == [True]


def test_dropping_frees_a_disk_that_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = filled("old", 1000, 10), filled("new", 1000, 20)

    def usage(path: Path) -> Usage:
        return Usage(LARGE, 0, entries.RESERVE + (0 if old.folder.is_dir() else 1000))

    monkeypatch.setattr(entries.shutil, "disk_usage", usage)
    assert make_room(900, LARGE, set()) == ""
    assert there(old, new) == [False, True]


def test_what_killed_runs_left_behind_goes() -> None:
    made = filled("kept", 10, 10)
    left = [
        entries.locate_cache() / f".{made.folder.name}.0123456789ab.tmp",
        entries.locate_cache() / ".x.0123456789ab.tmp",
    ]
    left[0].mkdir()
    (left[0] / "00000.f16").write_bytes(bytes(5000))
    left[1].write_bytes(bytes(5000))
    for path in left:
        os.utime(path, (1, 1))
    assert make_room(100, 1000, set()) == ""
    assert not [path for path in left if path.exists()]
    assert there(made) == [True]


def test_a_lock_is_waited_for_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "POLL", 0.01)
    made, messages, looks = locate_entry(ABOUT), [], []
    made.folder.mkdir(parents=True)
    other = FileLock(made.folder.with_suffix(".lock"))
    other.acquire()

    def check() -> None:
        looks.append(1)
        if len(looks) == 3:
            other.release()

    with made.lock(messages.append, check):
        assert messages == ["another run computes the same features; waiting for it"]
        assert len(looks) == 3
        assert not entries.drop_entry(made.folder)
    assert entries.drop_entry(made.folder)


def test_waiting_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "POLL", 0.01)
    made = locate_entry(ABOUT)
    made.folder.mkdir(parents=True)

    def stop() -> None:
        raise KeyboardInterrupt

    with (
        FileLock(made.folder.with_suffix(".lock")),
        pytest.raises(KeyboardInterrupt),
        made.lock(lambda message: None, stop),
    ):
        raise AssertionError("not to be reached")


def test_a_file_system_without_locks_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, timeout: float = 0) -> None:
        raise NotImplementedError

    monkeypatch.setattr(entries.FileLock, "acquire", refuse)
    with locate_entry(ABOUT).lock(said, never):
        assert locate_entry(ABOUT).folder.is_dir()
    assert not entries.drop_entry(locate_entry(ABOUT).folder)
