"""Header of a safetensors file: parses and checks it without the safetensors library.

The library maps the file into memory, so that a file that shrinks while it is read would kill the process. The file has
the length of the header in 8 bytes, the header as JSON, and the tensors' bytes without gaps::

    {"__metadata__": {TEXT: TEXT, …}, NAME: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import IO, Any

from finetune.errors import WeightsError

MAX_HEADER = 100_000_000  # bytes, as in the library
MAX_TENSORS = 100_000  # the largest networks have a few thousand
MAX_NAME = 1024
MAX_DIMS = 32  # as in NumPy; the product of millions of numbers would take forever
WIDTHS = {"BOOL": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "U8": 1, "U16": 2, "U32": 4, "U64": 8}
WIDTHS |= {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its type, its shape, and where its bytes begin and end in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def parse_header(file: IO[bytes], size: int) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the tensors and metadata of an open file of ``size`` bytes; raises ``WeightsError`` for invalid ones."""
    length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER, size - 8):
        raise WeightsError(f"its header of {length:,} bytes is too long")
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_reject_duplicates)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"its header is not JSON ({error!s:.100})") from None
    if not isinstance(header, dict):
        raise WeightsError("its header names no tensors")
    metadata = _check_texts(header.pop("__metadata__", None))
    if len(header) > MAX_TENSORS or any(len(name) > MAX_NAME for name in header):
        raise WeightsError(
            f"it holds more than {MAX_TENSORS:,} tensors, or a name of more than {MAX_NAME:,} characters"
        )
    entries = {name: _parse_entry(name, about, 8 + length) for name, about in header.items()}
    _check_layout(entries, 8 + length, size)
    return entries, metadata


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate name")
    for text in (*found, *found.values()):
        if isinstance(text, str):
            text.encode()  # raises an error for half a surrogate pair
    return found


def _check_texts(metadata: Any) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError("its metadata is not text")
    return metadata


def _parse_entry(name: str, about: Any, begin: int) -> Entry:
    if not isinstance(about, dict) or about.keys() != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"its header does not describe {name!r}")
    dtype, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2):
        raise WeightsError(f"its header states no valid shape or offsets for {name!r}")
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise WeightsError(f"it holds {name!r} as {dtype!r:.50}, which is not supported")
    first, last = offsets
    if last - first != prod(shape) * WIDTHS[dtype]:
        raise WeightsError(f"{name!r} has shape {tuple(shape)} of {dtype} but {last - first:,} bytes")
    return Entry(dtype, tuple(shape), begin + first, begin + last)


def _are_sizes(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= MAX_DIMS
        and all(type(value) is int and 0 <= value < 2**63 for value in values)
    )


def _check_layout(entries: dict[str, Entry], begin: int, size: int) -> None:
    """Raise ``WeightsError`` unless the tensors fill the rest of the file, without gaps and overlaps."""
    at = begin
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != at:
            raise WeightsError("its tensors overlap or leave gaps")
        at = entry.end
    if at != size:
        raise WeightsError(f"its tensors need {at:,} bytes, but it has {size:,}")
