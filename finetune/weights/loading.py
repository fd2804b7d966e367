"""From a weights file to arrays by parameter name: exactly the network's, every name accounted for."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from finetune.components import Backbone, ImageSpec
from finetune.errors import WeightsError
from finetune.files.promise import sha256
from finetune.normalisation import find_image_fault
from finetune.recipe.models import ImageSection
from finetune.weights import fitting, layouts
from finetune.weights.formats import owncheckpoint, tensorfile, torchfile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.weights.fetching import Source
    from finetune.weights.fitting import Shapes
    from finetune.weights.formats.tensorfile import Format, Index, Record
    from finetune.weights.layouts import Translation


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex; raises ``WeightsError`` for what is no file with content."""
    tensorfile.first_bytes(path)
    return sha256(path)


def kind(path: Path) -> Format:
    """Return the format of a file by its content; raises ``WeightsError`` for all but three formats."""
    return "pytorch" if torchfile.is_torch(path) else tensorfile.kind(path)


def anything(digest: str) -> None:
    """Take any hash."""


def whole(path: Path, check: Callable[[str], None] = anything) -> tuple[Index, str]:
    """Return what is in a file and its SHA-256, of the very bytes that are used.

    ``check`` may refuse the hash before anything is made of the bytes. Of a run's checkpoint only the network is
    returned. Raises ``WeightsError`` for all but sound files of safetensors, MindSpore and PyTorch.
    """
    if kind(path) != "pytorch":
        index, found_digest = tensorfile.whole(path, check)
        return owncheckpoint.as_weights(path, index), found_digest
    before = digest(path)
    check(before)
    found = torchfile.index(path)
    if digest(path) != before:
        raise WeightsError(f"'{path}' changed while it was read; try again")
    return found, before


def metadata(path: Path) -> dict[str, str]:
    """Return the texts in a file; PyTorch's have none, and those of a run's checkpoint are what its model would say."""
    return {} if kind(path) == "pytorch" else owncheckpoint.texts(path, tensorfile.index(path).metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Float32 arrays by parameter name, and the report for ``weights.json``."""

    tensors: dict[str, NDArray[np.float32]]
    report: dict[str, Any]


def peek(source: Source, backbone: Backbone) -> Mapping[str, Any]:
    """Return the backbone options that belong to weights, from the record or the names in the file.

    A file that this project saved says them itself. Raises ``WeightsError`` for a file that cannot be read.
    """
    if source.record is not None and source.record.options:
        return source.record.options
    index = source.opened(backbone).index
    try:
        return fitting.options(index, backbone)
    except WeightsError as error:
        raise WeightsError(f"'{source.path}' has {error}") from error


def image_defaults(source: Source | None) -> dict[str, Any]:
    """Return what ``ImageSpec`` takes for these weights; nothing where ImageNet's usual values are to be used.

    What a file of this project says itself comes before its record, which may know no more than an address.
    """
    if source is None:
        return {}
    text = source.metadata.get("image")
    if text is None and source.record is not None:
        known = {f.name: getattr(source.record, f.name) for f in fields(ImageSpec) if hasattr(source.record, f.name)}
        if fault := find_image_fault(known):
            raise WeightsError(f"the record of the weights '{source.name}' has a wrong {fault}")
        return known
    return {} if text is None else image_in(source.path, text)


def image_in(path: Path, text: str) -> dict[str, Any]:
    """Return what ``ImageSpec`` takes from a text in a file of this project; ``WeightsError`` for a damaged one."""
    try:
        said = ImageSection.model_validate_json(text).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        raise WeightsError(f"'{path}' has damaged metadata of its images ({why}); copy it again") from error
    return {name: value for name, value in said.items() if value != "auto"}


def load(source: Source, backbone: Backbone, expected: Shapes, head: Collection[str], keep_head: bool) -> Loaded:
    """Read the arrays for a network whose parameters are ``expected``, and report on every name.

    Names and shapes must be exactly the network's, but for the ``head``, which starts anew unless ``keep_head``.
    Raises ``WeightsError`` for any other difference, for a wrong hash and for NaN or infinity.
    """
    opened, record = source.opened(backbone), source.record
    index, digest = opened.index, opened.sha256
    try:
        # The file's names stand for its tensors, so that only what the network takes is read.
        found = layouts.translate({name: name for name in index.records}, expected, backbone)
        wanted = [name for name in expected if keep_head or name not in head]
        fitting.check(found, wanted, expected, index.records, keep_head=keep_head)
    except WeightsError as error:
        raise WeightsError(f"'{source.path}'{made_for(index, backbone)}: {error}") from None
    if record is not None and record.layout not in ("", found.layout):
        raise WeightsError(
            f"'{source.path}' names its parameters as '{found.layout}' does, not as '{record.layout}'; "
            "correct the layout of this Weights record"
        )
    records = {name: index.records[found.tensors[name]] for name in wanted}
    arrays = {name: _float32(source.path, name, record) for name, record in records.items()}
    about = {"source": source.name, "path": str(source.path), "sha256": digest, "layout": found.layout}
    about |= {"not_kept": opened.not_kept} if opened.not_kept else {}
    return Loaded(tensors=arrays, report=about | names(found, index, wanted, expected))


def made_for(index: Index, backbone: Backbone) -> str:
    """Return which other backbone a file of this project is for, as part of a message; empty for all other files."""
    try:
        used = json.loads(index.metadata["backbone"])["use"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return "" if used == backbone.name else f" is for backbone '{used:.80}'" if isinstance(used, str) else ""


def _float32(path: Path, name: str, record: Record) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        array = np.asarray(tensorfile.array(path, name, record), dtype=np.float32)
    if not np.isfinite(array).all():
        raise WeightsError(f"'{path}' holds NaN or infinity in {name!r}; give a file from a run that did not diverge")
    return array


def names(found: Translation[str], index: Index, wanted: Collection[str], expected: Collection[str]) -> dict[str, Any]:
    """Return what became of every name: those of the network, and of entries that are ignored the file's own."""
    every: dict[str, Any] = {
        "loaded": list(wanted),
        "missing": [name for name in expected if name not in found.tensors],
        "unexpected": sorted(found.unexpected),
        "reinitialised": [name for name in expected if name not in wanted],
        "ignored": sorted((*found.ignored, *index.others)),
        "merged": {own: index.merged[name] for own, name in found.tensors.items() if name in index.merged},
    }
    return every | {"counts": {key: len(value) for key, value in every.items()}}
