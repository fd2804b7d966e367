"""From a weights file to arrays by parameter name: exactly the network's, every name accounted for."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from finetune.components import Backbone, ImageSpec
from finetune.errors import WeightsError
from finetune.recipe.models import ImageSection
from finetune.weights import layouts, pieces, tensorfile
from finetune.weights.layouts import Translation, listing
from finetune.weights.sources import Source, sha256

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Shapes = Mapping[str, tuple[int, ...]]

FLOATS = ("float32", "float16", "bfloat16", "float64")


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
    summary = tensorfile.inspect(source.path)
    layout = layouts.match(pieces.joined(summary)[0].shapes, backbone)
    if layout is None:
        return {}
    return _own_options(source, summary.metadata, backbone) if layout.name == layouts.OWN else layout.options


def _own_options(source: Source, metadata: Mapping[str, str], backbone: Backbone) -> Mapping[str, Any]:
    try:
        about = json.loads(metadata.get("backbone", "{}"))
        if about.get("use") != backbone.name:
            return {}
        return backbone.options.model_validate_json(json.dumps(about.get("options", {}))).model_dump()
    except (ValueError, AttributeError) as error:
        raise WeightsError(f"'{source.path}' has damaged metadata of its backbone ({error}); copy it anew") from error


def image_defaults(source: Source | None) -> dict[str, Any]:
    """Return what ``ImageSpec`` takes for these weights; nothing where ImageNet's usual values are to be used."""
    if source is None:
        return {}
    if source.record is not None:
        return {f.name: getattr(source.record, f.name) for f in fields(ImageSpec) if hasattr(source.record, f.name)}
    text = tensorfile.inspect(source.path).metadata.get("image")
    if text is None:
        return {}
    try:
        said = ImageSection.model_validate_json(text).model_dump()
    except ValidationError as error:
        raise WeightsError(f"'{source.path}' has damaged metadata of its images ({error}); copy it anew") from error
    return {name: value for name, value in said.items() if value != "auto"}


def check_classes(source: Source, classes: Collection[str]) -> None:
    """Raise ``WeightsError`` if the head in a file that this project saved is for other classes, or in other order."""
    text = tensorfile.inspect(source.path).metadata.get("classes")
    if text is not None and text != json.dumps(list(classes)):
        raise WeightsError(
            f"'{source.path}' has a head for the classes {text:.200}, in this order, and the photos have others; "
            "write head.keep_pretrained=false"
        )


def load(source: Source, backbone: Backbone, expected: Shapes, head: Collection[str], keep_head: bool) -> Loaded:
    """Read the arrays for a network whose parameters are ``expected``, and report on every name.

    Names and shapes must be exactly the network's, but for the ``head``, which starts anew unless ``keep_head``.
    Raises ``WeightsError`` for any other difference, for a wrong hash and for NaN or infinity.
    """
    summary = tensorfile.inspect(source.path)
    digest = sha256(source.path)
    if source.record is not None and digest != source.record.sha256:
        raise WeightsError(
            f"'{source.path}' has sha256 {digest}, not {source.record.sha256} as promised; remove it to fetch it anew"
        )
    try:
        summary, parts = pieces.joined(summary)
        # The file's names stand for its tensors, so that only what the network takes is read.
        found = layouts.translate({name: name for name in summary.shapes}, expected, backbone)
        wanted = [name for name in expected if keep_head or name not in head]
        _check(found, wanted, expected, summary, keep_head)
    except WeightsError as error:
        raise WeightsError(f"'{source.path}': {error}") from None
    tensors = pieces.read(source.path, {found.tensors[name] for name in wanted}, parts)
    arrays = {name: _float32(source.path, found.tensors[name], tensors[found.tensors[name]]) for name in wanted}
    return Loaded(tensors=arrays, report=_report(source, digest, found, wanted, expected))


def _check(
    found: Translation[str], wanted: Collection[str], expected: Shapes, summary: tensorfile.Summary, keep_head: bool
) -> None:
    """Raise ``WeightsError`` unless the file holds just what is wanted, as floating-point numbers of its shapes."""
    missing = [name for name in wanted if name not in found.tensors]
    shapes = {name: summary.shapes[found.tensors[name]] for name in wanted if name in found.tensors}
    other = [f"{name} {shape} for {expected[name]}" for name, shape in shapes.items() if shape != expected[name]]
    whole = [name for name in shapes if summary.dtypes[found.tensors[name]] not in FLOATS]
    wrong = [
        listing("lacks", missing),
        listing("has another shape for", other),
        listing("has whole numbers for", whole),
        listing("has no place for", found.unexpected if keep_head else ()),
    ]
    if any(wrong):
        only_head = all(name.startswith(layouts.HEAD) for name in (*missing, *other, *whole))
        remedy = "write head.keep_pretrained=false" if only_head else "give the file of this network"
        raise WeightsError(f"the file {'; it '.join(text for text in wrong if text)}; {remedy}")


def _float32(path: Path, name: str, array: NDArray[np.generic]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        converted = np.asarray(array, dtype=np.float32)
    if not np.isfinite(converted).all():
        raise WeightsError(f"'{path}' holds NaN or infinity in {name!r}; give a file from a run that did not diverge")
    return converted


def _report(
    source: Source, digest: str, found: Translation[str], wanted: Collection[str], expected: Shapes
) -> dict[str, Any]:
    names = {
        "loaded": list(wanted),
        "missing": [name for name in expected if name not in found.tensors],
        "unexpected": list(found.unexpected),
        "reinitialised": [name for name in expected if name not in wanted],
        "ignored": list(found.ignored),
    }
    about = {"source": source.name, "path": str(source.path), "sha256": digest, "layout": found.layout}
    return {**about, **names, "counts": {key: len(value) for key, value in names.items()}}
