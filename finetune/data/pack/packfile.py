"""Index of a pack: ``pack.json``, and a table of the photos of each split.

A pack is a folder of MindRecord files, each with MindRecord's own index next to it. ``pack.json`` lists every file with
its size and hash. ``train.rows`` has a record of fixed length for each photo, in order, and ``train.names`` has their
concatenated paths, so that a photo is found without a search and read without MindSpore.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from PIL import __version__ as pillow_version
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from finetune.components import Severity, Split
from finetune.data.scan import RULES
from finetune.errors import DataError
from finetune.files import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from finetune.components import Finding

INDEX = "pack.json"
FORMAT, VERSION = "finetune-pack", 1
LARGEST = 1 << 28  # maximum bytes of an index
NAME = r"^(train|valid|test)(-\d{5,})?\.(mindrecord|mindrecord\.db|rows|names)$"

# Hash, place and length of a photo in its file, end of its path in the names, class, and number of the file.
ROW = np.dtype(
    [
        ("digest", "V16"),
        ("offset", "<i8"),
        ("length", "<i8"),
        ("name_end", "<i8"),
        ("label", "<i4"),
        ("file", "<i4"),
    ]
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PackedFile(_Strict):
    """A file of a pack: its size in bytes, and the BLAKE2b hash of its content."""

    name: Annotated[str, Field(pattern=NAME)]
    bytes: NonNegativeInt
    blake2b: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Records(_Strict):
    """A MindRecord file, its index, and the number of photos in it."""

    records: PackedFile
    index: PackedFile
    photos: NonNegativeInt


class PackedFinding(_Strict):
    """A finding about the packed photos, such as one that was skipped."""

    severity: Severity
    subject: str
    text: str


class PackedSplit(_Strict):
    """One split: its classes, the number of photos in each, and its files."""

    classes: tuple[str, ...]
    counts: tuple[NonNegativeInt, ...]
    rows: PackedFile
    names: PackedFile
    files: tuple[Records, ...]
    findings: tuple[PackedFinding, ...] = ()

    def every_file(self) -> Iterator[PackedFile]:
        """Yield all files of the split."""
        yield from (self.rows, self.names)
        for each in self.files:
            yield from (each.records, each.index)


class Pack(_Strict):
    """The content of ``pack.json``; ``decoder`` identifies the decoder that all photos passed."""

    format: Literal["finetune-pack"] = "finetune-pack"
    version: Literal[1] = 1
    decoder: str
    dataset: str
    splits: dict[Split, PackedSplit]


def record_finding(finding: Finding) -> PackedFinding:
    """Convert a finding for the index: bytes of names that are not UTF-8 are escaped."""
    subject, text = (each.encode("utf-8", "backslashreplace").decode() for each in (finding.subject, finding.text))
    return PackedFinding(severity=finding.severity, subject=subject, text=text)


def describe_decoder() -> str:
    """Identify everything that decides whether a photo can be decoded."""
    return f"rules {RULES}, Pillow {pillow_version}"


def is_pack(folder: Path) -> bool:
    """Return whether a folder holds a pack; the index is written last, so that the pack is complete."""
    return (folder / INDEX).is_file()


def is_part(name: str) -> bool:
    """Return whether a pack has files of this name."""
    return name == INDEX or re.fullmatch(NAME, name) is not None


def save_index(folder: Path, pack: Pack) -> None:
    """Write the index; call this after all files that it lists are written."""
    content = pack.model_dump(mode="json")
    atomic.write_json(folder / INDEX, content | {"check": compute_checksum(content)})


def load_index(folder: Path) -> Pack:
    """Read the index; raises ``DataError`` if it is missing, damaged or of a different version."""
    path = folder / INDEX
    again = f"copy it again, or pack again with `finetune pack DATA {folder}`"
    try:
        if not path.is_file():
            raise DataError(f"no pack at '{folder}': it has no {INDEX}; make one with `finetune pack DATA {folder}`")
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}; check its permissions") from error
    try:
        if len(text) > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        content: Any = json.loads(text)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("not the index of a pack")
        if content.get("version") != VERSION:
            wrong = f"has version {content.get('version')!r:.20}, but this finetune reads version {VERSION}"
            raise DataError(f"'{path}' {wrong}; upgrade finetune, or pack again")
        if content.pop("check", None) != compute_checksum(content):
            raise ValueError("its content has changed")
        return Pack.model_validate_json(json.dumps(content))
    except (ValidationError, ValueError, RecursionError) as error:
        reason = "entries are missing or invalid" if isinstance(error, ValidationError) else str(error).splitlines()[0]
        raise DataError(f"'{path}' is damaged: {reason}; {again}") from error


def compute_checksum(content: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
