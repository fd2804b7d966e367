"""Tensor files: round trips in both formats, and every kind of file that must be refused."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from finetune.errors import WeightsError
from finetune.weights.formats import tensorfile

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
