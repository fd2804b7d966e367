"""The cache of converted files: the same as the original, checked to the last bit, never needed."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from finetune.errors import WeightsError
from finetune.weights import converted, fetching, loading
from finetune.weights.formats import tensorfile
from tests.weights.drawn_files import ascend, checkpoint, drawn, hub
from tests.weights.nano import NANO, OWN, RESNEXT50, STATE, entries, load, same

pytestmark = pytest.mark.usefixtures("home")


def test_a_checkpoint_is_converted_once_and_loads_the_same_from_the_cache(split: Path, home: Path) -> None:
    first = load(split)
    (entry,) = entries(home)
    assert entry == converted.locate_entry(loading.hash_file(split), NANO)
    assert same(load_file(entry), OWN)
    written = entry.stat().st_mtime_ns
    second = load(split)
    assert entry.stat().st_mtime_ns == written
    assert second.report == first.report
    assert same(first.tensors, OWN)
    assert same(second.tensors, OWN)
    assert first.report["merged"] == {name: 8 for name in OWN if name.endswith("conv2.weight")}
    assert first.report["counts"]["merged"] == 5
    assert len(first.report["ignored"]) == STATE
    assert all(array.flags.writeable for array in second.tensors.values())


def test_what_belongs_to_a_file_is_the_same_from_the_cache(split: Path, home: Path) -> None:
    source = fetching.Source(path=split, name="x")
    first = loading.read_options(source, NANO)
    assert entries(home)
    assert loading.read_options(source, NANO) == first == {"stem_pool": "same"}


def test_a_file_of_another_network_says_the_same_from_the_cache(tmp_path: Path, home: Path) -> None:
    path = checkpoint(tmp_path / "x.ckpt", {hub(name): OWN[name] for name in OWN if not name.startswith("layer3.1.")})
    said = []
    for _ in range(2):
        with pytest.raises(WeightsError, match=r"nearest layout, 'mindspore-hub', it lacks 15") as caught:
            load(path)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_a_file_in_no_layout_says_the_same_from_the_cache(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x.ckpt", {"strange": np.ones((2, 3), np.float32)})
    for _ in range(2):
        with pytest.raises(WeightsError, match=r"has no place for 1: 'strange'"):
            load(path)
        assert loading.read_options(fetching.Source(path=path, name="x"), NANO) == {}


def test_safetensors_are_not_converted(tmp_path: Path, home: Path) -> None:
    tensorfile.write_tensors(tmp_path / "x.safetensors", OWN, {})
    assert same(load(tmp_path / "x.safetensors").tensors, OWN)
    assert not entries(home)


def test_every_flipped_bit_of_an_entry_is_noticed(tmp_path: Path, home: Path) -> None:
    toy = {"conv1.weight": np.arange(4, dtype=np.float32).reshape(2, 2), "bn1.weight": np.ones(2, np.float32)}
    path = checkpoint(tmp_path / "x.ckpt", toy)
    digest = loading.hash_file(path)
    sound = converted.open_weights(path, NANO)
    assert sound.sha256 == digest
    (entry,) = entries(home)
    good = entry.read_bytes()
    for bit in range(0, 8 * len(good), 5):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        entry.write_bytes(bad)
        opened = converted.open_weights(path, NANO)
        found = opened.index
        assert not opened.not_kept
        assert found.records.keys() == sound.index.records.keys()
        assert {n: r.content() for n, r in found.records.items()} == {n: toy[n].tobytes() for n in toy}
        assert (found.format, found.others) == (sound.index.format, sound.index.others)
        assert entry.read_bytes() == good or harmless(bad, good), bit


def harmless(bad: bytearray, good: bytes) -> bool:
    """Tell whether two entries say the same, in other words: a flipped bit can change how a header is spelled."""
    heads = [json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]) for data in (bad, good)]
    return heads[0] == heads[1]


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 100, b'\x08\0\0\0\0\0\0\0{"a":3} '])
def test_an_entry_that_is_none_is_made_anew(split: Path, home: Path, content: bytes) -> None:
    load(split)
    (entry,) = entries(home)
    good = entry.read_bytes()
    entry.write_bytes(content)
    assert same(load(split).tensors, OWN)
    assert entry.read_bytes() == good


def test_an_entry_made_by_other_rules_is_made_anew(split: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(split)
    (entry,) = entries(home)
    old = entry.read_bytes()
    monkeypatch.setattr(converted, "VERSION", converted.VERSION + 1)
    assert same(load(split).tensors, OWN)
    assert entry.read_bytes() != old


def test_a_cache_that_cannot_be_written_is_done_without(split: Path, home: Path) -> None:
    home.write_text("a file")
    report = load(split).report
    assert "cannot write" in report["not_kept"]
    home.unlink()
    assert load(split).report == {key: value for key, value in report.items() if key != "not_kept"}


def test_a_disk_that_takes_no_more_is_done_without(split: Path, home: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        loaded = load(split)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same(loaded.tensors, OWN)
    assert "cannot write" in loaded.report["not_kept"]
    assert not list((home / "weights" / "converted").iterdir())


def test_a_file_that_is_replaced_while_it_is_read_is_not_kept(
    split: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "hash_file", lambda path: "0" * 64)
    with pytest.raises(WeightsError, match=r"changed while it was read"):
        converted.open_weights(split, NANO)
    assert not entries(home)


def test_what_was_opened_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    own = drawn(NANO)
    tensorfile.write_tensors(path, own, {})
    source = fetching.Source(path=path, name="x")
    digest = source.opened(NANO).sha256
    tensorfile.write_tensors(path, {name: array + 1 for name, array in own.items()}, {})
    shapes = {name: array.shape for name, array in own.items()}
    loaded = loading.load(source, NANO, shapes, head=frozenset(), keep_head=True)
    assert loaded.report["sha256"] == digest != loading.hash_file(path)
    assert all(np.array_equal(loaded.tensors[name], own[name]) for name in own)


LOADING = """
import sys
from pathlib import Path
import finetune_model
from finetune.weights import fetching, loading

def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

backbone = next(b for b in finetune_model.finetune_backbones() if b.name == "resnext50")
head = {"head.fc.weight": (1000, 2048), "head.fc.bias": (1000,)}
path, before = Path(sys.argv[1]), peak()
source = fetching.Source(path=path, name="x")
loaded = loading.load(source, backbone, {**backbone.shapes(backbone.options()), **head}, head, True)
print(loaded.report["counts"]["loaded"], (peak() - before) / path.stat().st_size, "mindspore" in sys.modules)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_loading_resnext50_takes_little_memory(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "hub.ckpt", ascend(drawn(RESNEXT50, 1000), 32))
    said = []
    for _ in range(2):
        command = [sys.executable, "-c", LOADING, str(path)]
        said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert [(loaded, mindspore) for loaded, _, mindspore in said] == [("267", "False")] * 2
    assert float(said[0][1]) < 3
    assert float(said[1][1]) < 1.5  # from the cache
