"""Checkpoints of MindSpore: their values, and crafted, cut and damaged files."""

from __future__ import annotations

import contextlib
from binascii import crc32
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import WeightsError
from finetune.machine import device
from finetune.weights.formats import mindspore_ckpt, tensorfile
from tests.weights.test_tensorfile import GOOD, TENSORS, check_damage, entry, field, read, same, tensor

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


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
