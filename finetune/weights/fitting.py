"""Whether a file's tensors are a network's: every name, shape and type, and the options that the file asks for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from finetune.errors import WeightsError
from finetune.weights import layouts
from finetune.weights.layouts import listing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from finetune.components import Backbone
    from finetune.weights.formats.tensorfile import Index, Record
    from finetune.weights.layouts import Translation

    Shapes = Mapping[str, tuple[int, ...]]

FLOATS = ("float32", "float16", "bfloat16", "float64")


def options(index: Index, backbone: Backbone) -> Mapping[str, Any]:
    """Return the backbone options that a file asks for: its own word if it has one, else those of its layout.

    Raises ``WeightsError`` for a word that is damaged.
    """
    layout = layouts.match(index.records, backbone)
    if layout is None:
        return {}
    try:
        about = json.loads(index.metadata.get("backbone", "{}"))
        if about.get("use") != backbone.name:
            return layout.options
        return backbone.options.model_validate_json(json.dumps(about.get("options", {}))).model_dump()
    except (ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"damaged metadata of its backbone ({error}); copy it anew") from error


def fit(index: Index, backbone: Backbone) -> Translation[str]:
    """Return the names of a file that fits a backbone, in the network's order, its head being ``unexpected``.

    Raises ``WeightsError`` with all that differs.
    """
    expected = shapes(backbone, options(index, backbone))
    found = layouts.translate({name: name for name in index.records}, expected, backbone)
    check(found, expected, expected, index.records, keep_head=False)
    return replace(found, tensors={name: found.tensors[name] for name in expected})


def shapes(backbone: Backbone, said: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the parameters of a backbone's stages; one that does not tell them without MindSpore is built."""
    try:
        chosen = backbone.options.model_validate(dict(said))
    except ValidationError as error:
        raise WeightsError(f"the options of '{backbone.name}' cannot be told from the file ({error})") from error
    if backbone.shapes is not None:
        return dict(backbone.shapes(chosen))
    from finetune.machine import device

    device.set_up(device="cpu")
    from finetune.network.network import build_stages

    built = build_stages(backbone, chosen)
    return {f"{stage}.{p.name}": tuple(p.shape) for stage, cell in built.items() for p in cell.get_parameters()}


def default_shapes(backbone: Backbone) -> dict[str, tuple[int, ...]] | None:
    """Return the parameters of the stages with default options; None where they are not known without building them."""
    if backbone.shapes is None or any(field.is_required() for field in backbone.options.model_fields.values()):
        return None
    return dict(backbone.shapes(backbone.options()))


def check(
    found: Translation[str],
    wanted: Collection[str],
    expected: Shapes,
    records: Mapping[str, Record],
    *,
    keep_head: bool,
) -> None:
    """Raise ``WeightsError`` unless a file holds just what is wanted, as floating-point numbers of its shapes."""
    missing = [name for name in wanted if name not in found.tensors]
    held = {name: records[found.tensors[name]] for name in wanted if name in found.tensors}
    turned = [name for name, each in held.items() if each.shape != expected[name]]
    other = [f"{name} {held[name].shape} for {expected[name]}" for name in turned]
    whole = [name for name, each in held.items() if each.dtype not in FLOATS]
    wrong = [
        listing("lacks", missing),
        listing("has another shape for", other),
        listing("has whole numbers for", whole),
        listing("has no place for", tuple(found.unexpected) if keep_head else ()),
    ]
    if any(wrong):
        only_head = all(name.startswith(layouts.HEAD) for name in (*missing, *other, *whole))
        remedy = "write head.keep_pretrained=false" if only_head else "give the file of this network"
        if other and not missing and all(sorted(held[name].shape) == sorted(expected[name]) for name in turned):
            remedy = f"{remedy}, or let its Layout transpose these axes"
        raise WeightsError(f"the file {'; it '.join(text for text in wrong if text)}; {remedy}")
