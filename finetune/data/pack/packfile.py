"""What a pack says about itself: ``pack.json``, and a table of its photos for each split.

A pack is a folder of MindRecord files, each with the index that MindRecord keeps beside it. ``pack.json`` names every
file with its size and hash; ``train.rows`` has a record of fixed length for each photo, in their order, and
``train.names`` their paths one after the other. So a photo is found without a search and read without MindSpore.
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
LARGEST = 1 << 28  # bytes of an index
NAME = r"^(train|valid|test)(-\d{5,})?\.(mindrecord|mindrecord\.db|rows|names)$"

# Where a photo begins in its file and how long it is, where its path ends in the names, class, number of the file.
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
    """A MindRecord file, the index beside it, and how many photos it holds."""

    records: PackedFile
    index: PackedFile
    photos: NonNegativeInt


class PackedFinding(_Strict):
    """A finding about the photos that were packed, such as one that was left out."""

    severity: Severity
    subject: str
    text: str


class PackedSplit(_Strict):
    """One split: its classes, how many photos each has, and its files."""

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
    """What ``pack.json`` says; ``decoder`` tells which photos were taken for sound."""

    format: Literal["finetune-pack"] = "finetune-pack"
    version: Literal[1] = 1
    decoder: str
    dataset: str
    splits: dict[Split, PackedSplit]


def record_finding(finding: Finding) -> PackedFinding:
    """Return a finding as the index holds it: bytes of a name that are not UTF-8 are escaped."""
    subject, text = (each.encode("utf-8", "backslashreplace").decode() for each in (finding.subject, finding.text))
    return PackedFinding(severity=finding.severity, subject=subject, text=text)


def describe_decoder() -> str:
    """Return what decides whether a photo can be decoded."""
    return f"rules {RULES}, Pillow {pillow_version}"


def is_pack(folder: Path) -> bool:
    """Tell whether a folder holds a whole pack."""
    return (folder / INDEX).is_file()


def is_part(name: str) -> bool:
    """Return whether a pack has files of this name."""
    return name == INDEX or re.fullmatch(NAME, name) is not None


def save_index(folder: Path, pack: Pack) -> None:
    """Write the index, after everything that it names."""
    said = pack.model_dump(mode="json")
    atomic.write_json(folder / INDEX, said | {"check": compute_checksum(said)})


def load_index(folder: Path) -> Pack:
    """Return what the index says; raises ``DataError`` if there is none, or it is damaged or of another version."""
    path = folder / INDEX
    again = f"copy it again, or pack again with `finetune pack DATA {folder}`"
    try:
        if not path.is_file():
            raise DataError(f"no pack at '{folder}': it has no {INDEX}; make one with `finetune pack DATA {folder}`")
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}; check who may read it") from error
    try:
        if len(text) > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        said: Any = json.loads(text)
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            raise ValueError("no index of a pack")
        if said.get("version") != VERSION:
            what = f"of version {said.get('version')!r:.20}, and this finetune reads version {VERSION}"
            raise DataError(f"'{path}' is {what}; upgrade finetune, or pack again")
        if said.pop("check", None) != compute_checksum(said):
            raise ValueError("its content has changed")
        return Pack.model_validate_json(json.dumps(said))
    except (ValidationError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if not isinstance(error, ValidationError) else "it lacks what it must say"
        raise DataError(f"'{path}' is damaged: {reason}; {again}") from error


def compute_checksum(said: dict[str, Any]) -> str:
    """Return a hash of what an index says."""
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()
