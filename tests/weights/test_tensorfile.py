"""Tensor files: round trips in both formats, and every kind of file that must be refused."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from binascii import crc32
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from finetune.errors import WeightsError
from finetune.machine import device
from finetune.weights.formats import mindspore_ckpt, tensorfile

pytestmark = pytest.mark.once

TENSORS = {
    "b.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a.bias": np.array([1.5, -2.0], np.float16),
    "step": np.array(7, np.int64),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "double": np.array([[1e-300]], np.float64),
}


# The wire format, written by hand so that it can also be written wrong.


def varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(dims: tuple[int, ...], kind: bytes, content: bytes) -> bytes:
    return b"".join(field(1, dim % 2**64) for dim in dims) + field(2, kind) + field(3, content)


def entry(tag: bytes, dims: tuple[int, ...], content: bytes, kind: bytes = b"Float32") -> bytes:
    return field(1, field(1, tag) + field(2, tensor(dims, kind, content)))


GOOD = entry(b"w", (2,), bytes(8)) + entry(b"v", (1, 3), bytes(12))


def read(folder: Path, data: bytes, name: str = "x.ckpt") -> tensorfile.TensorFile:
    path = folder / name
    path.write_bytes(data)
    return tensorfile.read_tensors(path)


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == array.dtype and found[name].shape == array.shape and np.array_equal(found[name], array)
        for name, array in expected.items()
    )


# safetensors


def test_safetensors_written_here_come_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "x.safetensors"
    tensorfile.write_tensors(path, TENSORS, {"image": '{"size": 64}', "name": "Blüte"})
    file = tensorfile.read_tensors(path)
    assert same(file.tensors, TENSORS)
    assert (file.metadata, file.format) == ({"image": '{"size": 64}', "name": "Blüte"}, "safetensors")
    assert same(load_file(path), TENSORS)


def test_arrays_that_are_read_can_be_written_to(tmp_path: Path) -> None:
    tensorfile.write_tensors(tmp_path / "x", TENSORS, {})
    for array in tensorfile.read_tensors(tmp_path / "x").tensors.values():
        assert array.flags.writeable
        assert array.flags.aligned


def test_views_and_foreign_byte_orders_are_written_as_what_they_show(tmp_path: Path) -> None:
    grid = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensorfile.write_tensors(tmp_path / "x", {"t": grid.T, "big": grid.astype(">f4"), "step": grid[:, ::2]}, {})
    found = tensorfile.read_tensors(tmp_path / "x").tensors
    assert same(found, {"t": grid.T, "big": grid, "step": grid[:, ::2]})


def test_the_same_content_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = "import sys, numpy as np; from pathlib import Path; from finetune.weights.formats import tensorfile;"
    code += "tensorfile.write_tensors(Path(sys.argv[1]), {k: np.ones(3, 'f4') for k in 'cab'}, {k: k for k in 'zyxwv'})"
    for name in "12":
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_inspect_tells_names_and_shapes_and_read_takes_only_some(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensorfile.write_tensors(path, TENSORS, {"k": "v"})
    summary = tensorfile.inspect(path)
    assert summary.shapes == {name: array.shape for name, array in TENSORS.items()}
    assert summary.dtypes == {name: array.dtype.name for name, array in TENSORS.items()}
    assert (summary.metadata, summary.format) == ({"k": "v"}, "safetensors")
    assert set(tensorfile.read_tensors(path, {"step", "mask"}).tensors) == {"step", "mask"}


def header(about: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def f32(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_safetensors_without_metadata_have_none(tmp_path: Path) -> None:
    for about in ({}, {"__metadata__": None}):
        assert read(tmp_path, header(about)) == tensorfile.TensorFile(tensors={}, metadata={}, format="safetensors")


def test_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    halves = (np.array([1.5, -3.25, 0.0], np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    data = header({"w": f32([3], [0, 6], "BF16")}, halves)
    assert same(read(tmp_path, data).tensors, {"w": np.array([1.5, -3.25, 0.0], np.float32)})
    data = entry(b"w", (3,), halves, b"BFloat16")
    assert same(read(tmp_path, data).tensors, {"w": np.array([1.5, -3.25, 0.0], np.float32)})


@pytest.mark.parametrize(
    "data",
    [
        header({"w": f32([1], [0, 4])}, bytes(4), length=2**62),
        header({"w": f32([1], [0, 4])}, bytes(4), length=2**31),
        header({"w": f32([1], [0, 4])}),
        header({"w": f32([1], [0, 4])}, bytes(8)),
        header({"w": f32([1], [0, 4]), "v": f32([1], [2, 6])}, bytes(6)),
        header({"w": f32([1], [4, 0])}, bytes(4)),
        header({"w": f32([2], [0, 4])}, bytes(4)),
        header({"w": f32([-1], [0, 4])}, bytes(4)),
        header({"w": f32([2**62, 8], [0, 0])}),
        header({"w": f32([0, 2**62, 2**62], [0, 0])}),
        header({"w": f32([1], [0, 1], "F8_E4M3")}, bytes(1)),
        header({"w": f32([1], [0, 4], "X32")}, bytes(4)),
        header({"__metadata__": {"k": 3}}),
        header(b"{" + b'"a":{' * 5000),
        header(b"{\xff\xfe}"),
        header(b'{"w":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},"w":3}'),
        header(b'{"\\ud800":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}}'),
        header([]),
        header({"w": [1]}),
        header({"w": {**f32([0], [0, 0]), "more": 1}}),
        header({"w": {"dtype": [], "shape": [0], "data_offsets": [0, 0]}}),
        header({"w": f32([True], [0, 4])}, bytes(4)),
        header({"w": f32([1], [0, 4]), "v": f32([1], [0, 4])}, bytes(4)),
        header({"w": f32([1], [4, 8])}, bytes(8)),
        header(b"{}")[:-1],
    ],
)
def test_malformed_safetensors_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        read(tmp_path, data, "x.safetensors")


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_safetensors_give_arrays_or_a_weights_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_file(TENSORS, path, {"a": "b"})
    if check_damage(path, bytearray(path.read_bytes()), data):
        assert same(load_file(path), tensorfile.read_tensors(path).tensors)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.sampled_from([2**63, 1.5, "F32", "I8", "", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
SIZES = st.lists(st.integers(0, 3), max_size=2)
OFFSETS = st.lists(st.integers(0, 9), min_size=2, max_size=2).map(sorted)
ABOUT = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["I8", "I16"]) | JSON, "shape": SIZES | JSON, "data_offsets": OFFSETS | JSON}
)


@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ABOUT | JSON, max_size=3), st.integers(0, 9))
@settings(max_examples=1000, deadline=None)
def test_what_is_taken_for_safetensors_is_what_the_library_takes(
    tmp_path_factory: pytest.TempPathFactory, about: object, size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(header(about, bytes(size)))
    try:
        found = tensorfile.read_tensors(path)
    except WeightsError:
        return
    assert same(load_file(path), found.tensors)


def test_a_file_that_becomes_shorter_is_an_error_not_a_signal(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensorfile.write_tensors(path, TENSORS, {})
    index = tensorfile.read_index(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(WeightsError, match=r"shrank while it was read"):
        [record.content() for record in index.records.values()]


# MindSpore's checkpoints


@pytest.mark.parametrize("crc", [False, True])
def test_checkpoints_of_mindspore_come_back_equal(tmp_path: Path, crc: bool) -> None:
    device.set_up(device="cpu")
    import mindspore as ms

    values = {name: array for name, array in TENSORS.items() if array.size}
    path = tmp_path / "x.ckpt"
    parameters = [{"name": name, "data": ms.Tensor(array)} for name, array in values.items()]
    half = ms.Tensor(np.array([1.5, -3.25], np.float32)).astype(ms.bfloat16)
    ms.save_checkpoint(
        [*parameters, {"name": "half", "data": half}],
        str(path),
        append_dict={"note": "Blüte", "lr": 0.5},
        crc_check=crc,
    )
    file = tensorfile.read_tensors(path)
    assert float(file.tensors.pop("lr")) == 0.5
    assert same(file.tensors, {**values, "half": np.array([1.5, -3.25], np.float32)})
    assert (file.metadata, file.format) == ({"note": "Blüte"}, "ckpt")
    assert tensorfile.inspect(path).shapes["b.weight"] == (3, 4)
    assert tensorfile.inspect(path).dtypes["half"] == "bfloat16"


@pytest.mark.parametrize("as_bytes", [False, True])
def test_tensors_that_mindspore_writes_in_pieces_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_bytes: bool
) -> None:
    device.set_up(device="cpu")
    import mindspore as ms
    from mindspore.train import serialization

    monkeypatch.setattr(serialization, "SLICE_SIZE", 1)  # KiB; 512 MiB as installed
    large = np.random.default_rng(0).random((100, 30), np.float32)
    path = tmp_path / "x.ckpt"
    if as_bytes:
        ms.save_checkpoint([{"name": "w", "data": ms.Tensor(large)}], str(path))
    else:
        serialization._exec_save(str(path), {"w": [[100, 30], "Float32", large], "v": [[1], "Float32", large[0, :1]]})
    assert path.read_bytes().count(b"Float32") >= (12 if as_bytes else 13)
    assert np.array_equal(tensorfile.read_tensors(path).tensors["w"], large)


def test_shapes_of_scalars_in_old_and_new_files(tmp_path: Path) -> None:
    data = entry(b"old", (0,), bytes(4)) + entry(b"new", (), bytes(4)) + entry(b"none", (0,), b"")
    assert {name: a.shape for name, a in read(tmp_path, data).tensors.items()} == {"old": (), "new": (), "none": (0,)}


MANY = mindspore_ckpt.MAX_VALUES + 1
BAD = {
    "content longer than its shape": (entry(b"w", (2,), bytes(12)), r"shape \(2,\) of float32 but 12 bytes, not 8"),
    "content shorter than its shape": (entry(b"w", (2,), bytes(4)), "but 4 bytes, not 8"),
    "content of half a number": (entry(b"w", (2,), bytes(7)), "but 7 bytes, not 8"),
    "negative dimension": (entry(b"w", (-2,), bytes(8)), "negative or too large"),
    "overflowing dimensions": (entry(b"w", (2**30,) * 5, bytes(8)), "but 8 bytes"),
    "dimension too large": (entry(b"w", (2**62, 0), b""), "negative or too large"),
    "too many dimensions": (entry(b"w", (1,) * 9, bytes(4)), "negative or too large"),
    "unknown type": (entry(b"w", (2,), bytes(8), b"Float31"), "unknown type 'Float31'"),
    "packed integers": (entry(b"w", (2,), bytes(1), b"Int4"), "unknown type 'Int4'"),
    "tag twice in a row": (GOOD + entry(b"v", (1, 3), bytes(12)), "holds 'v' twice"),
    "tag twice": (GOOD + entry(b"w", (2,), bytes(8)), "holds 'w' twice"),
    "pieces too long": (entry(b"w", (3,), bytes(8)) * 2, "but 16 bytes, not 12"),
    "pieces too short": (entry(b"w", (5,), bytes(8)) * 2, "but 16 bytes, not 20"),
    "pieces of two shapes": (entry(b"w", (4,), bytes(8)) + entry(b"w", (2, 2), bytes(8)), "twice, as different"),
    "empty piece": (entry(b"w", (2,), b"") + entry(b"w", (2,), bytes(8)), "holds 'w' twice"),
    "200k times one tag": (entry(b"w", (200_000,), bytes(4)) * 200_000, "more than 100,000 entries"),
    "too many tensors": (b"".join(entry(b"%d" % i, (), bytes(4)) for i in range(MANY)), "more than 100,000 entries"),
    "tag not UTF-8": (entry(b"w\xff", (2,), bytes(8)), "a tag is not UTF-8"),
    "empty tag": (entry(b"", (2,), bytes(8)), "a tag is empty"),
    "long tag": (entry(b"w" * 2000, (2,), bytes(8)), "longer than 1024"),
    "no tensor": (field(1, field(1, b"w")), "'w' is not a tensor"),
    "hash table": (field(1, field(1, b"w") + field(3, b"")), "'w' is not a tensor"),
    "tensor and hash table": (field(1, field(1, b"w") + field(2, b"") + field(3, b"")), "'w' is missing or corrupt"),
    "tensor twice": (field(1, field(1, b"w") + field(2, tensor((), b"Bool", b"\1")) * 2), "tensor twice"),
    "content twice": (field(1, field(1, b"w") + field(2, tensor((), b"Bool", b"") + field(3, b"\1"))), "content twice"),
    "no content": (field(1, field(1, b"w") + field(2, field(2, b"Bool"))), "content of 'w' is missing"),
    "no type": (field(1, field(1, b"w") + field(2, field(3, b"Bool"))), "type of 'w' is missing"),
    "a number for a tensor": (field(1, field(1, b"w") + field(2, 5)), "'w' is missing or corrupt"),
    "unknown field": (GOOD + field(1, field(1, b"w") + field(9, b"x")), "unknown field 9"),
    "unknown field outside": (GOOD + field(2, b"x"), "an entry is missing or corrupt"),
    "endless number": (GOOD + b"\xff" * 20, "truncated or corrupt"),
    "fixed-width field": (GOOD + b"\x0d1234", "truncated or corrupt"),
    "text of odd length": (entry(b"w", (0,), b"abc", b"str"), "but 3 bytes, not 0"),
    "wrong CRC": (GOOD + b"crc_num" + (crc32(GOOD) ^ 1).to_bytes(10, "big"), "the CRC that it states"),
}


@pytest.mark.parametrize("name", BAD)
def test_crafted_checkpoints_are_refused(tmp_path: Path, name: str) -> None:
    data, message = BAD[name]
    with pytest.raises(WeightsError, match=message) as caught:
        read(tmp_path, data)
    assert caught.value.exit_code == 4


def test_a_checkpoint_larger_than_any_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mindspore_ckpt, "MAX_BYTES", 10)
    with pytest.raises(WeightsError, match=r"too large for a MindSpore checkpoint"):
        read(tmp_path, GOOD)
    with pytest.raises(WeightsError, match=r"larger than 10 bytes"):
        mindspore_ckpt.parse(GOOD)


def test_a_checkpoint_cut_anywhere_gives_fewer_tensors_or_an_error(tmp_path: Path) -> None:
    for end in range(1, len(GOOD)):
        if end == len(entry(b"w", (2,), bytes(8))):  # between two messages: what is missing shows by name
            assert set(read(tmp_path, GOOD[:end]).tensors) == {"w"}
            continue
        with pytest.raises(WeightsError):
            read(tmp_path, GOOD[:end])


def test_a_checksum_notices_a_cut_between_messages_and_every_flipped_bit(tmp_path: Path) -> None:
    whole = GOOD + b"crc_num" + crc32(GOOD).to_bytes(10, "big")
    assert set(read(tmp_path, whole).tensors) == {"w", "v"}
    first = len(entry(b"w", (2,), bytes(8)))
    with pytest.raises(WeightsError, match=r"CRC"):
        read(tmp_path, whole[:first] + whole[len(GOOD) :])
    for bit in range(8 * len(GOOD)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WeightsError):
            read(tmp_path, bytes(flipped))


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_damaged_checkpoints_give_arrays_or_a_weights_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    check_damage(path, bytearray(GOOD + entry(b"note", (0,), "ü".encode("utf-32-le"), b"str")), data)


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_any_bytes_give_entries_or_a_weights_error(data: bytes) -> None:
    for body in (data, field(1, data), field(1, field(1, b"w") + field(2, data)), entry(b"w", (1,), bytes(4), data)):
        with contextlib.suppress(WeightsError):
            assert mindspore_ckpt.parse(body)


def check_damage(path: Path, content: bytearray, data: st.DataObject) -> bool:
    """Damage a file as a disk or an enemy would, read it, and tell whether that could be done."""
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "set", "cut", "insert", "repeat"])):
            case "flip":
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "set":
                content[at] = data.draw(st.integers(0, 255))
            case "cut":
                del content[at + 1 :]
            case "insert":
                content[at:at] = data.draw(st.binary(max_size=12))
            case "repeat":
                content += content[at:]
    path.write_bytes(content)
    try:
        file = tensorfile.read_tensors(path)
    except WeightsError:
        return False
    assert sum(array.nbytes for array in file.tensors.values()) <= 2 * len(content)
    return True


# Files that are something else


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; download"),
        (b"<!DOCTYPE html><html><title>Sign in</title>", "is a web page; download"),
        (b"\n  <html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "git-lfs pointer.*`git lfs pull`"),
        (b"\x1f\x8b\x08\x00", "is a gzip archive; unpack"),
        (b"\x89HDF\r\n", "is an HDF5 file; save its tensors as safetensors"),
        (b"weights", "neither safetensors nor a MindSpore checkpoint"),
        (bytes(100), "neither safetensors nor a MindSpore checkpoint"),
        (b"\n", "neither safetensors nor a MindSpore checkpoint"),
    ],
)
@pytest.mark.parametrize("name", ["x.ckpt", "x.safetensors"])
def test_other_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        read(tmp_path, content, name)
    assert str(tmp_path / name) in str(caught.value)


def test_pickles_are_never_run(tmp_path: Path) -> None:
    bomb, marker = tmp_path / "x.ckpt", tmp_path / "ran"
    bomb.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(WeightsError, match=r"is a pickle, which could run any code; save its tensors"):
        tensorfile.read_tensors(bomb)
    with zipfile.ZipFile(bomb, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb(marker)))
    with pytest.raises(WeightsError, match=r"is a zip archive, as PyTorch writes"):
        tensorfile.read_tensors(bomb)
    assert not marker.exists()


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "link.ckpt").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.ckpt")
    for name, message in {
        "missing.ckpt": "does not exist",
        "link.ckpt": "is a broken link",
        "pipe.ckpt": "is a pipe",
        ".": "is a folder; name the weights file in it",
    }.items():
        with pytest.raises(WeightsError, match=message):
            tensorfile.read_tensors(tmp_path / name)
        with pytest.raises(WeightsError, match=message):
            tensorfile.inspect(tmp_path / name)


def test_files_without_permission_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads everything")
    with pytest.raises(WeightsError, match=r"cannot be read: permission denied"):
        tensorfile.read_tensors(path)


def test_a_file_is_known_by_its_content_not_its_name(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.ckpt")
    assert tensorfile.read_tensors(tmp_path / "x.ckpt").format == "safetensors"
    assert read(tmp_path, GOOD, "x.safetensors").format == "ckpt"
