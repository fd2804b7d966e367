"""Strict loading: reads the arrays of a network from a weights file, and accounts for every name."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from finetune.components import Backbone, ImageSpec
from finetune.errors import WeightsError
from finetune.files.remote_file import sha256
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


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex; raises ``WeightsError`` unless it is a file with content."""
    tensorfile.read_head(path)
    return sha256(path)


def detect_format(path: Path) -> Format:
    """Detect the format of a file by its content; raises ``WeightsError`` for unsupported formats."""
    return "pytorch" if torchfile.is_torch(path) else tensorfile.detect_format(path)


def accept_any_hash(digest: str) -> None:
    """Accept any hash, as the default of ``check``."""


def read_complete(path: Path, check: Callable[[str], None] = accept_any_hash) -> tuple[Index, str]:
    """Read a file, and return its index and the SHA-256 of the bytes that were read.

    ``check`` receives the hash before the bytes are parsed, and may raise an error. From a checkpoint of a run, only
    the network is returned. Raises ``WeightsError`` for anything but valid files of safetensors, MindSpore and PyTorch.
    """
    if detect_format(path) != "pytorch":
        index, found_digest = tensorfile.read_complete(path, check)
        return owncheckpoint.as_weights(path, index), found_digest
    before = hash_file(path)
    check(before)
    found = torchfile.read_index(path)
    if hash_file(path) != before:
        raise WeightsError(f"'{path}' changed while it was read; try again")
    return found, before


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a file; empty for PyTorch, and that of the run's model for a checkpoint of a run."""
    return (
        {} if detect_format(path) == "pytorch" else owncheckpoint.read_texts(path, tensorfile.read_index(path).metadata)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Float32 arrays by parameter name, and the report for ``weights.json``."""

    tensors: dict[str, NDArray[np.float32]]
    report: dict[str, Any]


def read_options(source: Source, backbone: Backbone) -> Mapping[str, Any]:
    """Return the backbone options of weights, from the record or the names in the file.

    A file that this project saved states them itself. Raises ``WeightsError`` for a file that cannot be read.
    """
    if source.record is not None and source.record.options:
        return source.record.options
    index = source.opened(backbone).index
    try:
        return fitting.read_options(index, backbone)
    except WeightsError as error:
        raise WeightsError(f"'{source.path}' has {error}") from error


def read_image_defaults(source: Source | None) -> dict[str, Any]:
    """Return the ``ImageSpec`` arguments for these weights; empty if ImageNet's usual values apply.

    The metadata of a file of this project precedes its record, which may only have an address.
    """
    if source is None:
        return {}
    text = source.metadata.get("image")
    if text is None and source.record is not None:
        known = {f.name: getattr(source.record, f.name) for f in fields(ImageSpec) if hasattr(source.record, f.name)}
        if fault := find_image_fault(known):
            raise WeightsError(f"the record of the weights '{source.name}' has an invalid {fault}")
        return known
    return {} if text is None else parse_image(source.path, text)


def parse_image(path: Path, text: str) -> dict[str, Any]:
    """Parse the ``ImageSpec`` arguments in the metadata of a file; raises ``WeightsError`` if they are damaged."""
    try:
        stated = ImageSection.model_validate_json(text).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        raise WeightsError(f"'{path}' has damaged image metadata ({why}); copy it again") from error
    return {name: value for name, value in stated.items() if value != "auto"}


def load(source: Source, backbone: Backbone, expected: Shapes, head: Collection[str], keep_head: bool) -> Loaded:
    """Read the arrays for a network whose parameters are ``expected``, and report every name.

    Names and shapes must be exactly those of the network, except for the ``head``, which is re-initialised unless
    ``keep_head`` is set. Raises ``WeightsError`` for any other difference, for a wrong hash and for NaN or infinity.
    """
    opened, record = source.opened(backbone), source.record
    index, digest = opened.index, opened.sha256
    try:
        # Names are translated instead of tensors, so that only the tensors of the network are read.
        found = layouts.translate({name: name for name in index.records}, expected, backbone)
        wanted = [name for name in expected if keep_head or name not in head]
        fitting.check_fit(found, wanted, expected, index.records, keep_head=keep_head)
    except WeightsError as error:
        raise WeightsError(f"'{source.path}'{describe_target(index, backbone)}: {error}") from None
    if record is not None and record.layout not in ("", found.layout):
        raise WeightsError(
            f"'{source.path}' has the layout '{found.layout}', not '{record.layout}'; "
            "correct the layout of this Weights record"
        )
    records = {name: index.records[found.tensors[name]] for name in wanted}
    arrays = {name: _float32(source.path, name, record) for name, record in records.items()}
    about = {"source": source.name, "path": str(source.path), "sha256": digest, "layout": found.layout}
    about |= {"not_kept": opened.not_kept} if opened.not_kept else {}
    return Loaded(tensors=arrays, report=about | report_names(found, index, wanted, expected))


def describe_target(index: Index, backbone: Backbone) -> str:
    """Describe the different backbone that a file of this project is for, within a message; empty for other files."""
    try:
        used = json.loads(index.metadata["backbone"])["use"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    if not isinstance(used, str) or used == backbone.name:
        return ""
    return f" is for backbone '{used:.80}'"


def _float32(path: Path, name: str, record: Record) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        array = np.asarray(tensorfile.read_array(path, name, record), dtype=np.float32)
    if not np.isfinite(array).all():
        raise WeightsError(f"'{path}' holds NaN or infinity in {name!r}; use a file from a run that did not diverge")
    return array


def report_names(
    found: Translation[str], index: Index, wanted: Collection[str], expected: Collection[str]
) -> dict[str, Any]:
    """Report what happened to every name; ignored entries are listed by the file's names."""
    every: dict[str, Any] = {
        "loaded": list(wanted),
        "missing": [name for name in expected if name not in found.tensors],
        "unexpected": sorted(found.unexpected),
        "reinitialised": [name for name in expected if name not in wanted],
        "ignored": sorted((*found.ignored, *index.others)),
        "merged": {own: index.merged[name] for own, name in found.tensors.items() if name in index.merged},
    }
    return every | {"counts": {key: len(value) for key, value in every.items()}}
