"""MindSpore's checkpoint format (.ckpt): a parser and a writer that do not need MindSpore.

MindSpore's own loader trusts the file: if a content is longer than its shape, it corrupts the heap, and a file that was
cut between two messages loads with fewer parameters. The file is a protobuf message without compression::

    Checkpoint  { repeated Value value = 1 }
    Value       { string tag = 1; oneof { TensorProto tensor = 2; MapTensorProto maptensor = 3 } }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3 }

It may end with ``crc_num`` and ten bytes of CRC-32. A tensor above 512 MiB is stored as several consecutive Values with
the same tag, each with the shape of the complete tensor.
"""

from __future__ import annotations

from binascii import crc32
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING

from finetune.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Content = bytes | bytearray | memoryview

MAX_BYTES = 2**31  # the limit of protobuf, and therefore of MindSpore
MAX_VALUES = 100_000  # the largest networks have a few thousand tensors
MAX_TAG = 1024
MAX_DIMS = 8
MAX_LENGTH = 2**31  # of one dimension

VARINT, BYTES = 0, 2
TEXT = "str"
DTYPES = {
    "Bool": ("bool", 1),
    "Int8": ("int8", 1),
    "Int16": ("int16", 2),
    "Int32": ("int32", 4),
    "Int64": ("int64", 8),
    "UInt8": ("uint8", 1),
    "UInt16": ("uint16", 2),
    "UInt32": ("uint32", 4),
    "UInt64": ("uint64", 8),
    "Float16": ("float16", 2),
    "BFloat16": ("bfloat16", 2),
    "Float32": ("float32", 4),
    "Float64": ("float64", 8),
    TEXT: (TEXT, 4),
}
KINDS = {dtype: kind for kind, (dtype, _) in DTYPES.items()}
SLICE = 512 << 20  # MindSpore splits larger tensors


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its type by numpy's name, ``bfloat16``, or ``str``; its shape; its bytes in pieces."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[memoryview, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """One message of the file."""

    tag: str
    kind: str
    dims: tuple[int, ...]
    content: memoryview


def is_checkpoint(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` can be a checkpoint: a Value that begins with its tag."""
    length = next((i for i, byte in enumerate(head[1:11], 2) if byte < 0x80), 0)
    return head[:1] == b"\x0a" and length > 0 and head[length : length + 1] == b"\x0a"


def parse(data: bytes | bytearray) -> dict[str, Entry]:
    """Parse a complete checkpoint into entries by tag; raises ``WeightsError`` for anything invalid."""
    if len(data) > MAX_BYTES:
        raise WeightsError(f"it is larger than {MAX_BYTES:,} bytes")
    entries: dict[str, Entry] = {}
    for tag, group in groupby(_read_values(_check_crc(data)), key=lambda value: value.tag):
        if tag in entries:
            raise WeightsError(f"it holds {tag!r} twice")
        entries[tag] = _join_values(tag, tuple(group))
    if not entries:
        raise WeightsError("it holds no tensor")
    return entries


def _check_crc(data: bytes | bytearray) -> memoryview:
    """Return the data without its CRC, which is checked if there is one."""
    if data[-17:-10] != b"crc_num":
        return memoryview(data)
    body = memoryview(data)[:-17]
    if crc32(body) != int.from_bytes(data[-10:], "big"):
        raise WeightsError("its content does not have the CRC that it states")
    return body


def _read_values(body: memoryview) -> Iterator[Value]:
    for count, (number, message) in enumerate(_read_fields(body)):
        if count == MAX_VALUES:
            raise WeightsError(f"it holds more than {MAX_VALUES:,} entries")
        yield _read_value(_require_bytes(message, number == 1, "an entry"))


def _read_value(message: memoryview) -> Value:
    fields = _index_fields(_read_fields(message), {1: "tag", 2: "tensor", 3: "hash table"})
    tag = _decode_text(_require_bytes(fields.get(1, 0), True, "a tag"), "a tag")
    if 2 not in fields:
        raise WeightsError(f"{tag!r} is not a tensor")
    dims: list[int] = []
    rest: list[tuple[int, int | memoryview]] = []
    for number, value in _read_fields(_require_bytes(fields[2], 3 not in fields, f"{tag!r}")):
        if number != 1:
            rest.append((number, value))
        elif isinstance(value, int) and value < MAX_LENGTH and len(dims) < MAX_DIMS:
            dims.append(value)
        else:
            raise WeightsError(f"{tag!r} has too many dimensions, or one that is negative or too large")
    parts = _index_fields(rest, {2: "type", 3: "content"})
    kind = _decode_text(_require_bytes(parts.get(2, 0), True, f"the type of {tag!r}"), f"the type of {tag!r}")
    return Value(tag, kind, tuple(dims), _require_bytes(parts.get(3, 0), True, f"the content of {tag!r}"))


def _join_values(tag: str, values: tuple[Value, ...]) -> Entry:
    """Join the consecutive values of one tag, whose contents together must be exactly one tensor."""
    first, size = values[0], sum(len(value.content) for value in values)
    if first.kind not in DTYPES:
        raise WeightsError(f"{tag!r} has the unknown type {first.kind!r}")
    dtype, width = DTYPES[first.kind]
    # MindSpore writes the shape () as (0,); the dims of a text are not a shape.
    shape = () if first.dims == (0,) and size else first.dims
    shape = (size // width,) if dtype == TEXT else shape
    if len(values) > 1 and (len(first.content) == prod(shape) * width or not all(v.content for v in values)):
        raise WeightsError(f"it holds {tag!r} twice")
    if any((value.kind, value.dims) != (first.kind, first.dims) for value in values):
        raise WeightsError(f"it holds {tag!r} twice, as different tensors")
    if size != prod(shape) * width:
        raise WeightsError(f"{tag!r} has shape {shape} of {dtype} but {size:,} bytes, not {prod(shape) * width:,}")
    return Entry(dtype, shape, tuple(value.content for value in values))


def _read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field of a message: an int for a varint, otherwise bytes."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        value, at = _read_varint(message, at)
        if key & 7 == VARINT:
            yield key >> 3, value
        elif key & 7 == BYTES and value <= len(message) - at:
            yield key >> 3, message[at : at + value]
            at += value
        else:
            raise WeightsError("it is truncated or corrupt")


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read the unsigned number at a position, and return it with the position after it."""
    value = 0
    for shift, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise WeightsError("it is truncated or corrupt")


def _index_fields(fields: Iterable[tuple[int, int | memoryview]], names: dict[int, str]) -> dict[int, int | memoryview]:
    """Return fields by number; raises ``WeightsError`` for unknown and repeated fields."""
    found: dict[int, int | memoryview] = {}
    for number, value in fields:
        if number not in names or number in found:
            raise WeightsError(
                f"an entry has {names.get(number, f'the unknown field {number}')} twice or in the wrong place"
            )
        found[number] = value
    return found


def _require_bytes(value: int | memoryview, expected: bool, what: str) -> memoryview:
    if not expected or isinstance(value, int):
        raise WeightsError(f"{what} is missing or corrupt")
    return value


def _decode_text(value: memoryview, what: str) -> str:
    try:
        text = bytes(value[: MAX_TAG + 1]).decode("utf-8")
    except UnicodeDecodeError:
        raise WeightsError(f"{what} is not UTF-8") from None
    if not 0 < len(value) <= MAX_TAG:
        raise WeightsError(f"{what} is empty or longer than {MAX_TAG} bytes")
    return text


def encode_value(tag: str, dtype: str, shape: tuple[int, ...], content: Content) -> tuple[bytes, Content]:
    """Encode a Value as MindSpore does: return the bytes before the tensor's content, and the content.

    Raises ``WeightsError`` for tensors that the format does not support.
    """
    if dtype not in KINDS or len(content) > SLICE or len(shape) > MAX_DIMS or not 0 < len(tag.encode()) <= MAX_TAG:
        raise WeightsError(
            f"a checkpoint cannot store {tag!r} ({dtype} of shape {shape}, {len(content):,} bytes); write safetensors"
        )
    dims = b"".join(_encode_number(1, dim) for dim in shape)
    before = dims + _encode_head(2, len(KINDS[dtype])) + KINDS[dtype].encode() + _encode_head(3, len(content))
    name = _encode_head(1, len(tag.encode())) + tag.encode()
    tensor = _encode_head(2, len(before) + len(content))
    return _encode_head(1, len(name) + len(tensor) + len(before) + len(content)) + name + tensor + before, content


def encode_text(tag: str, content: str) -> tuple[bytes, Content]:
    """Encode a text as MindSpore does, in UTF-32."""
    return encode_value(tag, TEXT, (0,), content.encode("utf-32-le"))


def _encode_head(number: int, length: int) -> bytes:
    """Encode the key and length that precede the bytes of a field."""
    return _encode_varint(number << 3 | BYTES) + _encode_varint(length)


def _encode_number(number: int, value: int) -> bytes:
    return _encode_varint(number << 3 | VARINT) + _encode_varint(value)


def _encode_varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
