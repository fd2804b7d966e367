"""Files that take long to read, kept in the cache as safetensors, under the hash of the original and sealed.

An entry has the backbone's own names where one of its layouts knows the file's, and tells the file's names, so that
it is loaded just as the original is. One that is damaged, or made by other rules, is made anew.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune.errors import ResourceError, WeightsError
from finetune.files.atomic import sweep
from finetune.files.home import cache_folder
from finetune.weights import layouts, opening, tensorfile
from finetune.weights.sources import sha256
from finetune.weights.tensorfile import Index, Record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from finetune.components import Backbone

VERSION = 1
ABOUT, SEAL = "converted", "seal"


def index(path: Path, digest: str, backbone: Backbone) -> tuple[Index, str]:
    """Return what is in the file with this hash, converted at most once, and why it could not be kept, if so."""
    if opening.kind(path) == "safetensors":
        return opening.index(path), ""
    entry = place(digest, backbone)
    kept = _kept(entry, backbone)
    if kept is not None:
        return kept, ""
    found = opening.index(path)
    if sha256(path) != digest:
        raise WeightsError(f"'{path}' changed while it was read; try again")
    try:
        sweep(entry.parent)
        _keep(entry, found, backbone)
    except (ResourceError, OSError) as error:
        return found, str(error)
    return found, ""


def place(digest: str, backbone: Backbone) -> Path:
    """Return where the converted file is kept."""
    return cache_folder() / "weights" / "converted" / f"{digest}-{backbone.name}.safetensors"


def rules(backbone: Backbone) -> str:
    """Return what decides on an entry's content besides the file."""
    return hashlib.sha256(repr((VERSION, backbone.stages, backbone.layouts)).encode()).hexdigest()


def _keep(entry: Path, found: Index, backbone: Backbone) -> None:
    layout = layouts.match(found.records, backbone)
    naming = layout and layouts.naming(found.records, layout)
    names = naming.names if naming else {name: name for name in found.records}
    records = {own: found.records[name] for own, name in names.items()}
    about = {
        "rules": rules(backbone),
        "format": found.format,
        "names": names,
        "ignored": naming.ignored if naming else (),
        "others": found.others,
        "merged": found.merged,
        "metadata": found.metadata,
    }
    text = json.dumps(about, sort_keys=True)
    tensorfile.write_records(entry, records, {ABOUT: text, SEAL: seal(text, records)})


def _kept(entry: Path, backbone: Backbone) -> Index | None:
    """Return what is in an entry, read and checked to the last bit, or None."""
    try:
        if not entry.exists():
            return None
        found = tensorfile.index(entry)
        records = {name: _held(record) for name, record in found.records.items()}
        text = found.metadata[ABOUT]
        about = json.loads(text)
        if found.metadata[SEAL] == seal(text, records) and about["rules"] == rules(backbone):
            return _original(about, records)
    except (WeightsError, OSError, LookupError, ValueError, RecursionError):
        pass
    with suppress(OSError):
        entry.unlink()
    return None


def _held(record: Record) -> Record:
    """Read a tensor, so that what is checked is what is used."""
    data = record.content()
    return replace(record, content=lambda: data)


def _original(about: Mapping[str, Any], records: Mapping[str, Record]) -> Index:
    """Return an entry as if it were the file that it was made from."""
    return Index(
        format=about["format"],
        records={about["names"][own]: record for own, record in records.items()},
        metadata=about["metadata"],
        others=(*about["ignored"], *about["others"]),
        merged=about["merged"],
    )


def seal(text: str, records: Mapping[str, Record]) -> str:
    """Return a hash of everything in an entry."""
    total = hashlib.sha256(text.encode())
    for name in sorted(records):
        record = records[name]
        total.update(json.dumps([name, record.dtype, record.shape]).encode())
        total.update(record.content())
    return total.hexdigest()
