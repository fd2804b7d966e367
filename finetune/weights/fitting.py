"""Strict matching of weights: compares every name, shape and type in a file with those of a network."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from finetune.errors import WeightsError
from finetune.weights import layouts
from finetune.weights.layouts import format_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from finetune.components import Backbone
    from finetune.weights.formats.tensorfile import Index, Record
    from finetune.weights.layouts import Translation

    Shapes = Mapping[str, tuple[int, ...]]

FLOATS = ("float32", "float16", "bfloat16", "float64")


def read_options(index: Index, backbone: Backbone) -> Mapping[str, Any]:
    """Return the backbone options that a file needs: those in its metadata, or else those of its layout.

    Raises ``WeightsError`` for damaged metadata.
    """
    layout = layouts.find_layout(index.records, backbone)
    if layout is None:
        return {}
    try:
        about = json.loads(index.metadata.get("backbone", "{}"))
        if about.get("use") != backbone.name:
            return layout.options
        return backbone.options.model_validate_json(json.dumps(about.get("options", {}))).model_dump()
    except (ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"damaged backbone metadata ({error}); copy the file again") from error


def fit(index: Index, backbone: Backbone) -> Translation[str]:
    """Match a file with a backbone, and return its names in the network's order, with the head as ``unexpected``.

    Raises ``WeightsError`` that lists all differences.
    """
    expected = compute_shapes(backbone, read_options(index, backbone))
    found = layouts.translate({name: name for name in index.records}, expected, backbone)
    check_fit(found, expected, expected, index.records, keep_head=False)
    return replace(found, tensors={name: found.tensors[name] for name in expected})


def compute_shapes(backbone: Backbone, stated: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of a backbone's stages; builds the network if the backbone states none."""
    try:
        chosen = backbone.options.model_validate(dict(stated))
    except ValidationError as error:
        wrong = f"the file states invalid options for '{backbone.name}' ({error})"
        raise WeightsError(f"{wrong}; copy the file again") from error
    if backbone.shapes is not None:
        return dict(backbone.shapes(chosen))
    from finetune.machine import device

    device.set_up(device="cpu")
    from finetune.network.network import build_stages

    built = build_stages(backbone, chosen)
    return {f"{stage}.{p.name}": tuple(p.shape) for stage, cell in built.items() for p in cell.get_parameters()}


def compute_default_shapes(backbone: Backbone) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of the parameters with default options; None if the network had to be built for that."""
    if backbone.shapes is None or any(field.is_required() for field in backbone.options.model_fields.values()):
        return None
    return dict(backbone.shapes(backbone.options()))


def check_fit(
    found: Translation[str],
    wanted: Collection[str],
    expected: Shapes,
    records: Mapping[str, Record],
    *,
    keep_head: bool,
) -> None:
    """Raise ``WeightsError`` unless a file has exactly the wanted parameters, as floats of the expected shapes."""
    missing = [name for name in wanted if name not in found.tensors]
    held = {name: records[found.tensors[name]] for name in wanted if name in found.tensors}
    turned = [name for name, each in held.items() if each.shape != expected[name]]
    other = [f"{name} {held[name].shape} for {expected[name]}" for name in turned]
    integers = [name for name, each in held.items() if each.dtype not in FLOATS]
    wrong = [
        format_names("lacks", missing),
        format_names("has a different shape for", other),
        format_names("has integers for", integers),
        format_names("has no place for", tuple(found.unexpected) if keep_head else ()),
    ]
    if any(wrong):
        only_head = all(name.startswith(layouts.HEAD) for name in (*missing, *other, *integers))
        remedy = "set head.keep_pretrained=false" if only_head else "use a file of this network"
        if other and not missing and all(sorted(held[name].shape) == sorted(expected[name]) for name in turned):
            remedy = f"{remedy}, or let its Layout transpose these axes"
        raise WeightsError(f"the file {'; it '.join(text for text in wrong if text)}; {remedy}")
