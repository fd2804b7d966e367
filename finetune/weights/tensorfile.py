"""Files of named tensors: safetensors and MindSpore's checkpoints, recognised by content; no other kind is opened.

Nothing is ever unpickled: a pickle can run any code when it is read.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from finetune.errors import WeightsError
from finetune.files.atomic import write_bytes
from finetune.weights import mindspore_ckpt

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Format = Literal["safetensors", "ckpt"]

DTYPES = {
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}
CODES = {name: code for code, name in DTYPES.items()}

RESAVE = "save its tensors as safetensors where it was made, and give that file"
ANEW = "download or copy it anew"
# What a file begins with, what it then is, and the remedy.
STRANGERS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive, as PyTorch writes it around a pickle, which could run any code", RESAVE),
    (b"\x80", "a pickle, which could run any code", RESAVE),
    (b"\x89HDF", "an HDF5 file", RESAVE),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"version https://git-lfs", "a git-lfs pointer, not the file that it stands for", "run `git lfs pull`"),
    (b"<", "a web page", ANEW),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """The tensors of a file by name, its texts, and ``safetensors`` or ``ckpt``; bfloat16 is widened to float32."""

    tensors: dict[str, Array]
    metadata: dict[str, str]
    format: Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a file says about its tensors: shapes and types by name."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]
    format: Format


def read(path: Path, only: Collection[str] | None = None) -> TensorFile:
    """Read a file's tensors, or ``only`` some of them; the arrays own their memory.

    Raises ``WeightsError`` for anything but a sound file of the two formats, saying what it is and what to do.
    """
    index = _index(path)
    wanted = {name: record for name, record in index.records.items() if only is None or name in only}
    tensors = {name: _array(path, name, record) for name, record in wanted.items()}
    return TensorFile(tensors=tensors, metadata=index.metadata, format=index.format)


def inspect(path: Path) -> Summary:
    """Read a file's names, shapes and types without its tensors; raises ``WeightsError`` as ``read`` does."""
    index = _index(path)
    return Summary(
        shapes={name: record.shape for name, record in index.records.items()},
        dtypes={name: record.dtype for name, record in index.records.items()},
        metadata=index.metadata,
        format=index.format,
    )


def write(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors, whole or not at all; the same content gives the same bytes.

    Raises ``ResourceError`` if the disk refuses.
    """
    # The library writes metadata in an order that changes from process to process.
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    chunks: list[bytes] = []
    end = 0
    for name, array in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        chunks.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        start, end = end, end + len(chunks[-1])
        header[name] = {"dtype": CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, b"".join((len(text).to_bytes(8, "little"), text, *chunks)))


@dataclass(frozen=True, slots=True)
class Record:
    """A tensor that has not been read yet; ``content`` reads its bytes."""

    dtype: str
    shape: tuple[int, ...]
    content: Callable[[], bytearray]


@dataclass(frozen=True, slots=True)
class Index:
    """What is in a file."""

    format: Format
    records: dict[str, Record]
    metadata: dict[str, str]


def _index(path: Path) -> Index:
    try:
        _check_kind(path)
        return _ckpt(path) if _format(path) == "ckpt" else _safetensors(path)
    except PermissionError:
        raise WeightsError(f"'{path}' may not be read by this user; change its permissions") from None
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be read ({error.strerror}); {ANEW}") from error


def _check_kind(path: Path) -> None:
    """Refuse what is no file with content: opening a FIFO would wait for ever."""
    if not path.exists():
        raise WeightsError(f"'{path}' {'is a link to nothing' if path.is_symlink() else 'does not exist'}; name a file")
    about = os.stat(path)
    if stat.S_ISDIR(about.st_mode):
        raise WeightsError(f"'{path}' is a folder; name the weights file in it")
    if not stat.S_ISREG(about.st_mode):
        raise WeightsError(f"'{path}' is a pipe, socket or device; name a file")
    if about.st_size == 0:
        raise WeightsError(f"'{path}' is empty; {ANEW}")


def _format(path: Path) -> Format:
    """Return the format of a file by its first bytes, and refuse all that is neither."""
    with path.open("rb") as file:
        head = file.read(512)
    if mindspore_ckpt.is_checkpoint(head):
        return "ckpt"
    if head[8:9] == b"{":
        return "safetensors"
    for start, what, remedy in STRANGERS:
        if head.lstrip().startswith(start):
            raise WeightsError(f"'{path}' is {what}; {remedy}")
    raise WeightsError(
        f"'{path}' is neither safetensors nor a MindSpore checkpoint, or its first bytes are damaged; {ANEW}"
    )


def _ckpt(path: Path) -> Index:
    if path.stat().st_size > mindspore_ckpt.MAX_BYTES:
        raise WeightsError(f"'{path}' is larger than a MindSpore checkpoint can be; give it as safetensors")
    try:
        entries = mindspore_ckpt.parse(path.read_bytes())
    except WeightsError as error:
        raise WeightsError(f"'{path}' is a damaged MindSpore checkpoint: {error}; {ANEW}") from None
    records, metadata = {}, {}
    for name, entry in entries.items():
        if entry.dtype == mindspore_ckpt.TEXT:  # kept as UTF-32
            metadata[name] = b"".join(entry.pieces).decode("utf-32-le", "replace").rstrip("\0")
        else:
            records[name] = Record(entry.dtype, entry.shape, partial(_joined, entry.pieces))
    return Index("ckpt", records, metadata)


def _joined(pieces: tuple[memoryview, ...]) -> bytearray:
    return bytearray().join(pieces)


def _safetensors(path: Path) -> Index:
    """Return the index of a safetensors file, whose header, shapes and offsets the library has checked."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise WeightsError(f"'{path}' is a damaged safetensors file: {error}; {ANEW}") from None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", None) or {}
    records = {}
    for name, about in header.items():
        if about["dtype"] not in DTYPES:
            raise WeightsError(f"'{path}' holds {name!r} as {about['dtype']}, which is not read; convert it to F32")
        first, last = about["data_offsets"]
        content = partial(_slice, path, 8 + length + first, last - first)
        records[name] = Record(DTYPES[about["dtype"]], tuple(about["shape"]), content)
    return Index("safetensors", records, metadata)


def _slice(path: Path, start: int, size: int) -> bytearray:
    data = bytearray(size)
    with path.open("rb") as file:
        file.seek(start)
        if file.readinto(data) != size:
            raise WeightsError(f"'{path}' became shorter while it was read; {ANEW}")
    return data


def _array(path: Path, name: str, record: Record) -> Array:
    data = record.content()
    try:
        if record.dtype != "bfloat16":
            return np.frombuffer(data, np.dtype(record.dtype).newbyteorder("<")).reshape(record.shape)
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32).reshape(record.shape)
    except ValueError as error:
        raise WeightsError(f"'{path}' holds {name!r} of shape {record.shape}: {error}; {ANEW}") from None
