"""The scan: every image looked at once, remembered until it changes, by whatever cache there is."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune.components import Samples
from finetune.data import scan as scanning
from finetune.data.scan import make_progress, scan
from finetune.files.atomic import cache_folder
from tests.clocks import least_processor_time

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test with an empty cache."""
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that get decoded, as they do."""
    names: list[str] = []
    original = scanning.examine

    def counting(path: Path) -> Any:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(scanning, "examine", counting)
    return names


def photos(folder: Path, count: int = 6) -> list[Path]:
    """Write small PNGs that all differ."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(path)
    return paths


def samples(images: Sequence[Any]) -> Samples:
    """Return samples with one class."""
    return Samples(images=images, labels=[0] * len(images), classes=("a",))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_bad_files_are_found_with_their_reasons(tmp_path: Path, workers: int) -> None:
    paths = photos(tmp_path / "photos", 40)
    paths[3].write_text("text")
    paths[17].write_bytes(paths[17].read_bytes()[:50])
    paths[18].unlink()
    result = scan(samples(paths), "train", workers)
    assert sorted(result.bad) == [3, 17, 18]
    assert result.bad[3] == "is not an image: it starts with the text 'text'"
    assert result.bad[17] == "is truncated"
    assert result.bad[18] == "does not exist"
    assert [i for i, digest in enumerate(result.hashes) if digest is None] == [3, 17, 18]
    assert len(set(result.hashes)) == 38
    assert not result.wrong


def test_files_are_decoded_again_only_when_they_changed(tmp_path: Path, decoded: list[str]) -> None:
    paths = photos(tmp_path / "photos")
    paths[1].write_text("text")
    first = scan(samples(paths), "train", 2)
    assert sorted(decoded) == sorted(p.name for p in paths)
    decoded.clear()
    assert scan(samples(paths), "train", 2) == first
    assert decoded == []
    Image.new("RGB", (9, 9)).save(paths[1])
    os.utime(paths[2], ns=(1, 1))
    second = scan(samples(paths), "train", 2)
    assert sorted(decoded) == [paths[1].name, paths[2].name]
    assert second.bad == {}
    assert second.hashes[2:] == first.hashes[2:]


def test_what_depends_on_more_than_the_content_is_not_remembered(tmp_path: Path) -> None:
    paths = photos(tmp_path / "photos")
    moved = paths[0].rename(tmp_path / "moved.png")
    assert scan(samples(paths), "train", 0).bad == {0: "does not exist"}
    moved.rename(paths[0])
    assert scan(samples(paths), "train", 0).bad == {}


def test_a_relative_path_is_the_same_file(tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    paths = photos(tmp_path / "photos")
    scan(samples(paths), "train", 0)
    decoded.clear()
    monkeypatch.chdir(tmp_path)
    scan(samples([path.relative_to(tmp_path) for path in paths]), "train", 0)
    assert decoded == []


def cache_file() -> Path:
    """Return the only cache file there is."""
    (file,) = (cache_folder() / "scan").iterdir()
    return file


@pytest.mark.parametrize(
    "damage",
    [
        b"\0\xff\xfe not json at all \n[1, 2]\n{}\n[]\nnull\n",
        b'["a", 1, 2, 3, 4]\n["a", "1", 2, "x", null]\n[["a"], 1, 2, "x", null]\n["a", 1, 2, null, null]\n',
        b"[" * 100_000,
        b"",
    ],
)
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, decoded: list[str], damage: bytes) -> None:
    paths = photos(tmp_path / "photos")
    expected = scan(samples(paths), "train", 0)
    cache_file().write_bytes(damage)
    decoded.clear()
    assert scan(samples(paths), "train", 0) == expected
    assert len(decoded) == len(paths)
    decoded.clear()
    assert scan(samples(paths), "train", 0) == expected
    assert decoded == []


def test_a_line_cut_short_costs_one_image(tmp_path: Path, decoded: list[str]) -> None:
    paths = photos(tmp_path / "photos")
    expected = scan(samples(paths), "train", 0)
    cache_file().write_bytes(cache_file().read_bytes()[:-10])
    decoded.clear()
    assert scan(samples(paths), "train", 0) == expected
    assert decoded == [paths[-1].name]


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "file"))
    paths = photos(tmp_path / "photos")
    for _ in range(2):
        assert scan(samples(paths), "train", 2).bad == {}


def test_the_cache_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.data.scan.SPARE_LINES", 10)
    paths = photos(tmp_path / "photos")
    for round_ in range(10):
        for path in paths:
            os.utime(path, ns=(round_, round_))
        scan(samples(paths), "train", 0)
    lines = [json.loads(line) for line in cache_file().read_text().splitlines() if line]
    assert len(lines) <= 2 * len(paths) + 10
    assert [line[0] for line in lines][-1] == str(paths[-1])


def test_a_scan_that_is_stopped_keeps_what_it_did(tmp_path: Path, decoded: list[str]) -> None:
    paths = photos(tmp_path / "photos", 64)

    def stop(split: str, done: int, total: int) -> None:
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(samples(paths), "train", 0, stop)
    decoded.clear()
    scan(samples(paths), "train", 0)
    assert 0 < len(decoded) <= 32


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    scan(samples(photos(tmp_path / "photos", 40)), "valid", 2, lambda *each: told.append(each))
    assert told == [("valid", 16, 40), ("valid", 32, 40), ("valid", 40, 40)]


def test_names_that_are_no_text(tmp_path: Path, decoded: list[str]) -> None:
    paths = photos(tmp_path / "photos", 2)
    odd = [
        paths[0].rename(paths[0].with_name(os.fsdecode(b"caf\xe9.png"))),
        paths[1].rename(paths[1].with_name("a\nb.png")),
    ]
    first = scan(samples(odd), "train", 0)
    assert first.bad == {}
    decoded.clear()
    assert scan(samples(odd), "train", 0) == first
    assert decoded == []


def test_arrays_are_checked_and_hashed() -> None:
    array = np.zeros((4, 5, 3), np.uint8)
    items = [array, array + 1, array.copy(), array.reshape(5, 4, 3), array[..., 0], "a.jpg", None]
    result = scan(samples(items), "train", 2)
    assert result.hashes[0] == result.hashes[2] != result.hashes[1]
    assert result.hashes[3] != result.hashes[0]
    assert result.wrong[4].startswith("an array of shape 4x5 and type uint8 is not an image")
    assert result.wrong[5] == "is a str, not a path or an array"
    assert result.wrong[6] == "is a NoneType, not a path or an array"
    assert result.bad == {}
    assert not (cache_folder() / "scan").exists()


class Lazy(Sequence[Any]):
    """A sequence that makes its arrays when asked, and fails at one of them."""

    def __init__(self, count: int) -> None:
        self.count, self.made = count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        if index == 5:
            raise ZeroDivisionError("no such flower")
        self.made += 1
        return np.full((4, 4, 3), index, np.uint8)

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("a lazy sequence must not be run through")


def test_what_the_dataset_raises_is_its_fault() -> None:
    lazy = Lazy(20)
    result = scan(samples(lazy), "train", 2)
    assert result.wrong == {5: "cannot be made: ZeroDivisionError: no such flower"}
    assert lazy.made <= 21


def test_no_images() -> None:
    result = scan(samples([]), "train", 2)
    assert (result.bad, result.hashes) == ({}, ())


def test_threads_end(tmp_path: Path) -> None:
    scan(samples(photos(tmp_path / "photos")), "train", 3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("finetune-")]


def test_a_warm_scan_of_10000_files_takes_less_than_two_seconds_of_processor_time(tmp_path: Path) -> None:
    first = photos(tmp_path / "photos", 1)[0]
    paths = [first.with_name(f"{number}.png") for number in range(10_000)]
    for path in paths:
        os.link(first, path)
    cold = scan(samples(paths), "train", 2)
    assert least_processor_time(lambda: scan(samples(paths), "train", 2), 2.0) < 2.0
    assert scan(samples(paths), "train", 2) == cold


def test_real_photos(flowers: Path) -> None:
    paths = sorted((flowers / "valid").glob("*/*.jpg"))[:300]
    result = scan(samples(paths), "valid", 2)
    assert result.bad == {}
    assert None not in result.hashes


def test_a_long_scan_says_how_far_it_is() -> None:
    said: list[str] = []
    clock = iter([0.0, 4.0, 11.0, 11.0, 20.0, 22.0, 22.0])
    progress = make_progress(said.append, lambda: next(clock))
    for done in (1000, 2000, 3000, 4000):
        progress("train", done, 60000)
    assert said == ["scanning train images: 2,000 of 60,000", "scanning train images: 4,000 of 60,000"]
