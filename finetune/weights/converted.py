"""Cache of converted weights: stores files that are slow to read as safetensors, by the hash of the original.

An entry uses the backbone's own names and also stores the names of the original, so that it loads exactly like the
original. An entry that is damaged, or was made by different rules, is made again.
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
    """Content of a file by its own names, with pieces joined, and its SHA-256; ``not_kept``: why it is not cached."""

    index: Index
    sha256: str
    not_kept: str = ""


def open_weights(
    path: Path, backbone: Backbone, check: Callable[[str], None] = loading.accept_any_hash
) -> OpenedWeights:
    """Read a file for a backbone, converting it at most once; ``check`` raises an error for a wrong hash."""
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
        return OpenedWeights(index=found, sha256=digest)  # not weights of this backbone, so not worth caching
    try:
        sweep(entry.parent)
        _store(entry, found, backbone)
    except (ResourceError, OSError) as error:
        return OpenedWeights(index=found, sha256=digest, not_kept=str(error))
    return OpenedWeights(index=found, sha256=digest)


def join_pieces(path: Path, index: Index, backbone: Backbone) -> Index:
    """Join the pieces of tensors; errors name the file."""
    try:
        return layouts.join_pieces(index, backbone)
    except WeightsError as error:
        raise WeightsError(f"'{path}': {error}") from None


def locate_entry(digest: str, backbone: Backbone) -> Path:
    return cache_folder() / "weights" / "converted" / f"{digest}-{backbone.name}.safetensors"


def hash_rules(backbone: Backbone) -> str:
    """Hash everything other than the file that determines an entry."""
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
    """Read and verify an entry; None if there is no valid one."""
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
    """Return the index of the file that an entry was made from."""
    return Index(
        format=about["format"],
        records={about["names"][own]: record for own, record in records.items()},
        metadata=about["metadata"],
        others=(*about["ignored"], *about["others"]),
        merged=about["merged"],
    )
