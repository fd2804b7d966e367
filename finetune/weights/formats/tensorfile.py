"""Tensor files: reads safetensors and MindSpore checkpoints, recognised by content, and writes safetensors.

Nothing is ever unpickled, since a pickle can run any code when it is read. A file is first read as an ``Index`` of
``Record``s, each of which reads its tensor on request, so that only the tensors in use are in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from math import prod
from typing import IO, TYPE_CHECKING, Literal

import numpy as np

from finetune.errors import WeightsError
from finetune.files.atomic import atomic_path
from finetune.weights.formats import mindspore_ckpt, safetensors_header

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.generic]

Format = Literal["safetensors", "ckpt", "pytorch"]

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

SEAL = "blake2b"  # metadata key in this project's files of a hash of everything else in the file
RESAVE = "save its tensors as safetensors where it was made, and use that file"
AGAIN = "download or copy it again"
# The first bytes of files in other formats, with a description and the remedy.
OTHER_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive, as PyTorch writes it around a pickle, which could run any code", RESAVE),
    (b"\x80", "a pickle, which could run any code", RESAVE),
    (b"\x89HDF", "an HDF5 file", RESAVE),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself", "run `git lfs pull`"),
    (b"<", "a web page", AGAIN),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """The tensors of a file by name, its metadata and its format; bfloat16 is widened to float32."""

    tensors: dict[str, Array]
    metadata: dict[str, str]
    format: Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Shapes and types of the tensors in a file, by name."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]
    format: Format


@dataclass(frozen=True, slots=True)
class Record:
    """A tensor that has not been read yet: its type by numpy's name or ``bfloat16``; ``content`` reads its bytes."""

    dtype: str
    shape: tuple[int, ...]
    content: Callable[[], bytes | bytearray | memoryview]

    @property
    def itemsize(self) -> int:
        """The bytes of one number."""
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    def held(self) -> Record:
        """Return the record with its bytes in memory, so that the bytes that are checked are the ones that are used."""
        data = self.content()
        return Record(self.dtype, self.shape, lambda: data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Content of a file: tensors, metadata, and the names of other entries.

    ``merged`` counts the pieces of joined tensors; ``seal`` is the hash of the content that the file states, if any.
    """

    format: Format
    records: dict[str, Record]
    metadata: dict[str, str]
    others: tuple[str, ...] = ()
    merged: Mapping[str, int] = field(default_factory=dict)
    seal: str | None = None


def read_tensors(path: Path, only: Collection[str] | None = None) -> TensorFile:
    """Read a file's tensors, or ``only`` some of them; the arrays own their memory.

    Raises ``WeightsError`` for anything but a valid file of the two formats, with a description and a remedy.
    """
    found = read_index(path)
    wanted = {name: record for name, record in found.records.items() if only is None or name in only}
    if only is None and found.seal is not None:  # hash the bytes that are used
        wanted = {name: record.held() for name, record in wanted.items()}
        check_seal(path, found.seal, wanted, found.metadata)
    tensors = {name: read_array(path, name, record) for name, record in wanted.items()}
    return TensorFile(tensors=tensors, metadata=found.metadata, format=found.format)


def inspect(path: Path) -> Summary:
    """Read a file's names, shapes and types without its tensors; raises ``WeightsError`` as ``read_tensors`` does."""
    found = read_index(path)
    return Summary(
        shapes={name: record.shape for name, record in found.records.items()},
        dtypes={name: record.dtype for name, record in found.records.items()},
        metadata=found.metadata,
        format=found.format,
    )


def write_tensors(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Atomically write tensors as safetensors; equal content gives equal bytes.

    Raises ``ResourceError`` if the disk refuses.
    """
    write_records(path, {name: _make_record(array) for name, array in tensors.items()}, metadata)


def write_records(path: Path, records: Mapping[str, Record], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors as ``write_tensors`` does, with one tensor in memory at a time."""
    # The safetensors library writes metadata in an order that differs between processes.
    texts = dict(sorted({**metadata, SEAL: compute_seal(records, metadata)}.items()))
    header: dict[str, object] = {"__metadata__": texts}
    in_order = sorted(records.items(), key=lambda item: (-item[1].itemsize, item[0]))
    end = 0
    for name, record in in_order:
        start, end = end, end + prod(record.shape) * record.itemsize
        header[name] = {"dtype": CODES[record.dtype], "shape": list(record.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, record in in_order:
            file.write(record.content())


def compute_seal(records: Mapping[str, Record], metadata: Mapping[str, str]) -> str:
    """Return a hash of tensors, with their names, types and shapes, and of metadata."""
    found = hashlib.blake2b(digest_size=16)
    for key, text in sorted(metadata.items()):
        found.update(json.dumps([key, text]).encode())
    for name, record in sorted(records.items()):
        found.update(json.dumps([name, record.dtype, record.shape]).encode())
        found.update(record.content())
    return found.hexdigest()


def check_seal(path: Path, seal: str, records: Mapping[str, Record], metadata: Mapping[str, str]) -> None:
    """Raise ``WeightsError`` if the content of a file differs from what was written."""
    if compute_seal(records, metadata) != seal:
        raise WeightsError(f"'{path}' is damaged: its content changed after it was written; {AGAIN}")


def read_array(path: Path, name: str, record: Record) -> Array:
    """Read a tensor as an array; bfloat16 is widened to float32."""
    data = record.content()
    try:
        if record.dtype != "bfloat16":
            return np.frombuffer(data, np.dtype(record.dtype).newbyteorder("<")).reshape(record.shape)
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32).reshape(record.shape)
    except ValueError as error:
        raise WeightsError(f"'{path}' holds {name!r} of shape {record.shape}: {error}; {AGAIN}") from None


def _make_record(tensor: Array) -> Record:
    little = tensor.dtype.newbyteorder("<")
    return Record(tensor.dtype.name, tensor.shape, lambda: tensor.astype(little, copy=False).tobytes())


def read_index(path: Path) -> Index:
    """Read the index of a file without its tensors; raises ``WeightsError`` as ``read_tensors`` does."""
    form = detect_format(path)
    with _explain_errors(path):
        if form == "ckpt":
            return _index_checkpoint(path, _read_all(path, form))
        with path.open("rb") as file:
            return _index_safetensors(path, file, path.stat().st_size, partial(_read_slice, path))


def read_complete(path: Path, check: Callable[[str], None]) -> tuple[Index, str]:
    """Read a complete file, and return its index and the SHA-256 of the bytes that the index uses.

    ``check`` receives the hash before the bytes are parsed, and may raise an error.
    """
    form = detect_format(path)
    with _explain_errors(path):
        data = _read_all(path, form)
    digest = hashlib.sha256(data).hexdigest()
    check(digest)
    if form == "ckpt":
        return _index_checkpoint(path, data), digest
    view = memoryview(data)
    head = BytesIO(view[: 8 + int.from_bytes(view[:8], "little")])
    found = _index_safetensors(path, head, len(data), lambda start, size: view[start : start + size])
    if found.seal is not None:
        check_seal(path, found.seal, found.records, found.metadata)
    return found, digest


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file; raises ``WeightsError`` unless it is a file with content."""
    with _explain_errors(path):
        _check_kind(path)
        with path.open("rb") as file:
            return file.read(512)


@contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise WeightsError(f"'{path}' cannot be read: permission denied; change its permissions") from None
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be read ({error.strerror}); {AGAIN}") from error


def _check_kind(path: Path) -> None:
    """Raise ``WeightsError`` unless a path is a file with content; opening a FIFO would wait forever."""
    if not path.exists():
        raise WeightsError(f"'{path}' {'is a broken link' if path.is_symlink() else 'does not exist'}; name a file")
    about = os.stat(path)
    if stat.S_ISDIR(about.st_mode):
        raise WeightsError(f"'{path}' is a folder; name the weights file in it")
    if not stat.S_ISREG(about.st_mode):
        raise WeightsError(f"'{path}' is a pipe, socket or device; name a file")
    if about.st_size == 0:
        raise WeightsError(f"'{path}' is empty; {AGAIN}")


def detect_format(path: Path) -> Format:
    """Detect the format of a file by its first bytes; raises ``WeightsError`` for any other format."""
    head = read_head(path)
    if mindspore_ckpt.is_checkpoint(head):
        return "ckpt"
    if head[8:9] == b"{":
        return "safetensors"
    for start, what, remedy in OTHER_FORMATS:
        if head.lstrip().startswith(start):
            raise WeightsError(f"'{path}' is {what}; {remedy}")
    raise WeightsError(
        f"'{path}' is neither safetensors nor a MindSpore checkpoint, or its first bytes are damaged; {AGAIN}"
    )


def _read_all(path: Path, form: Format) -> bytearray:
    if form == "ckpt" and path.stat().st_size > mindspore_ckpt.MAX_BYTES:
        raise WeightsError(f"'{path}' is too large for a MindSpore checkpoint; save it as safetensors")
    with path.open("rb") as file:
        data = bytearray(os.fstat(file.fileno()).st_size)
        del data[file.readinto(data) :]  # the file may have shrunk meanwhile
    return data


def _index_checkpoint(path: Path, data: bytearray) -> Index:
    try:
        entries = mindspore_ckpt.parse(data)
    except WeightsError as error:
        raise WeightsError(f"'{path}' is a damaged MindSpore checkpoint: {error}; {AGAIN}") from None
    records, metadata = {}, {}
    for name, entry in entries.items():
        if entry.dtype == mindspore_ckpt.TEXT:  # stored as UTF-32
            metadata[name] = b"".join(entry.pieces).decode("utf-32-le", "replace").rstrip("\0")
        else:
            records[name] = Record(entry.dtype, entry.shape, partial(_join_pieces, entry.pieces))
    return Index(format="ckpt", records=records, metadata=metadata)


def _join_pieces(pieces: tuple[memoryview, ...]) -> bytearray:
    return bytearray().join(pieces)


def _index_safetensors(
    path: Path, file: IO[bytes], size: int, part: Callable[[int, int], bytearray | memoryview]
) -> Index:
    """Read the index of an open file; ``part`` returns its bytes by offset and count."""
    try:
        entries, metadata = safetensors_header.parse_header(file, size)
    except WeightsError as error:
        raise WeightsError(f"'{path}' is a damaged safetensors file: {error}; {AGAIN}") from None
    records = {
        name: Record(DTYPES[entry.dtype], entry.shape, partial(part, entry.start, entry.end - entry.start))
        for name, entry in entries.items()
    }
    seal = metadata.pop(SEAL, None)
    return Index(format="safetensors", records=records, metadata=metadata, seal=seal)


def _read_slice(path: Path, start: int, size: int) -> bytearray:
    data = bytearray(size)
    with path.open("rb") as file:
        file.seek(start)
        if file.readinto(data) != size:
            raise WeightsError(f"'{path}' shrank while it was read; {AGAIN}")
    return data
