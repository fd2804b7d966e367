"""Files that take long to read, kept in the cache as safetensors, under the hash of the original and sealed.

An entry has the backbone's own names where one of its layouts knows the file's, and tells the file's names, so that
it is loaded just as the original is. One that is damaged, or made by other rules, is made anew.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import ResourceError, WeightsError
from finetune.files.atomic import cache_folder, sweep
from finetune.weights import layouts, loading
from finetune.weights.formats import tensorfile
from finetune.weights.formats.tensorfile import Index, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from finetune.components import Backbone

VERSION = 1
ABOUT = "converted"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedWeights:
    """What is in a file by its own names, pieces joined, and its SHA-256; ``not_kept`` says why the cache refused."""

    index: Index
    sha256: str
    not_kept: str = ""


def open_weights(
    path: Path, backbone: Backbone, check: Callable[[str], None] = loading.accept_any_hash
) -> OpenedWeights:
    """Return what is in a file for a backbone, read once and converted at most once; ``check`` may refuse its hash."""
    if loading.detect_format(path) == "safetensors":
        found, digest = loading.read_complete(path, check)
        return OpenedWeights(index=join_pieces(path, found, backbone), sha256=digest)
    digest = loading.hash_file(path)
    check(digest)
    entry = locate_entry(digest, backbone)
    kept = _load_entry(entry, backbone)
    if kept is not None:
        return OpenedWeights(index=kept, sha256=digest)
    found, read = loading.read_complete(path)
    if read != digest:
        raise WeightsError(f"'{path}' changed while it was read; try again")
    found = join_pieces(path, found, backbone)
    if layouts.find_layout(found.records, backbone) is None:
        return OpenedWeights(index=found, sha256=digest)  # it is not this backbone's, and not worth keeping
    try:
        sweep(entry.parent)
        _store(entry, found, backbone)
    except (ResourceError, OSError) as error:
        return OpenedWeights(index=found, sha256=digest, not_kept=str(error))
    return OpenedWeights(index=found, sha256=digest)


def join_pieces(path: Path, index: Index, backbone: Backbone) -> Index:
    """Return the index with whole tensors; an error names the file."""
    try:
        return layouts.join_pieces(index, backbone)
    except WeightsError as error:
        raise WeightsError(f"'{path}': {error}") from None


def locate_entry(digest: str, backbone: Backbone) -> Path:
    """Return where the converted file is kept."""
    return cache_folder() / "weights" / "converted" / f"{digest}-{backbone.name}.safetensors"


def hash_rules(backbone: Backbone) -> str:
    """Return what decides on an entry's content besides the file."""
    return hashlib.sha256(repr((VERSION, backbone.stages, backbone.layouts)).encode()).hexdigest()


def _store(entry: Path, found: Index, backbone: Backbone) -> None:
    layout = layouts.find_layout(found.records, backbone)
    assert layout is not None
    naming = layouts.apply_layout(found.records, layout)
    records = {own: found.records[name] for own, name in naming.names.items()}
    about = {
        "rules": hash_rules(backbone),
        "format": found.format,
        "names": naming.names,
        "ignored": naming.ignored,
        "others": found.others,
        "merged": found.merged,
        "metadata": found.metadata,
    }
    text = json.dumps(about, sort_keys=True)
    tensorfile.write_records(entry, records, {ABOUT: text})


def _load_entry(entry: Path, backbone: Backbone) -> Index | None:
    """Return what is in an entry, read and checked to the last bit, or None."""
    try:
        if not entry.exists():
            return None
        found = tensorfile.read_index(entry)
        records = {name: record.held() for name, record in found.records.items()}
        text = found.metadata[ABOUT]
        about = json.loads(text)
        tensorfile.check_seal(entry, found.seal or "", records, found.metadata)
        if about["rules"] == hash_rules(backbone):
            return _restore_index(about, records)
    except (WeightsError, OSError, LookupError, ValueError, RecursionError):
        pass
    with suppress(OSError):
        entry.unlink()
    return None


def _restore_index(about: Mapping[str, Any], records: Mapping[str, Record]) -> Index:
    """Return an entry as if it were the file that it was made from."""
    return Index(
        format=about["format"],
        records={about["names"][own]: record for own, record in records.items()},
        metadata=about["metadata"],
        others=(*about["ignored"], *about["others"]),
        merged=about["merged"],
    )
