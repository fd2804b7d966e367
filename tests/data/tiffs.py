"""TIFF files written by hand, with any number and kind of bands."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {"u": 1, "i": 2, "f": 3}


def write(
    path: Path,
    values: np.ndarray[Any, Any],
    photometric: int = 2,
    extra: tuple[int, ...] | None = None,
    *,
    planar: bool = False,
    big_endian: bool = False,
    big: bool = False,
    tile: int = 0,
    bits: int = 0,
    more: dict[int, int] | None = None,
) -> Path:
    """Write (height, width, bands) without compression; ``big`` is a BigTIFF, ``tile`` the side of its only tile."""
    order = ">" if big_endian else "<"
    height, width, bands = values.shape
    data = values.astype(values.dtype.newbyteorder(order))
    if tile:
        data = np.pad(data, ((0, tile - height), (0, tile - width), (0, 0)))
    chunks = [data[..., band].tobytes() for band in range(bands)] if planar else [data.tobytes()]
    where = {324: chunks, 322: [tile], 323: [tile]} if tile else {273: chunks, 278: [height]}
    tags: dict[int, list[Any]] = {
        256: [width],
        257: [height],
        258: [bits or values.dtype.itemsize * 8] * bands,
        259: [1],
        262: [photometric],
        277: [bands],
        284: [2 if planar else 1],
        339: [KINDS[values.dtype.kind]] * bands,
        325 if tile else 279: [len(chunk) for chunk in chunks],
        **{tag: [value] for tag, value in (more or {}).items()},
        **where,
        **({} if extra is None else {338: list(extra)}),
    }
    path.write_bytes(assembled(tags, chunks, order, big=big))
    return path


def assembled(tags: dict[int, list[Any]], chunks: list[bytes], order: str, *, big: bool) -> bytes:
    """Return a file: header, directory, values that do not fit into it, pixels."""
    count, offset, kind, inline = ("Q", "Q", 16, 8) if big else ("H", "I", 4, 4)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HHH", 43, 8, 0)
    head = head if big else head[:2] + struct.pack(f"{order}H", 42)
    start = len(head) + (8 if big else 4)
    after = start + struct.calcsize(f"{order}{count}") + len(tags) * (20 if big else 12) + (8 if big else 4)
    entries, values, pixels = b"", b"", b""
    room = sum(8 * len(each) for each in tags.values())
    for tag in sorted(tags):
        found = tags[tag]
        if tag in (273, 324):
            ends = np.cumsum([0, *map(len, chunks)])
            found, pixels = [after + room + int(end) for end in ends[:-1]], b"".join(chunks)
        packed = b"".join(struct.pack(f"{order}{offset}", each) for each in found)
        entries += struct.pack(f"{order}HH{offset}", tag, kind, len(found))
        if len(packed) <= inline:
            entries += packed.ljust(inline, b"\0")
        else:
            entries += struct.pack(f"{order}{offset}", after + len(values))
            values += packed
    directory = struct.pack(f"{order}{count}", len(tags)) + entries + bytes(8 if big else 4)
    return head + struct.pack(f"{order}{offset}", start) + directory + values.ljust(room, b"\0") + pixels
