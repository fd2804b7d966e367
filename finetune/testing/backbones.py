"""``check_backbone``: checks the contract of backbones."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from finetune.components import Backbone
from finetune.errors import PluginError
from finetune.normalisation import find_image_fault
from finetune.testing.contract import COMMON, PROCESS, Inspection, StopCheck, inspect_component
from finetune.weights import fetching, labels
from finetune.weights.layouts import OWN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from finetune.components import Layout, Weights

RULES = {
    **COMMON,
    "stages": "`build(options)` returns a mapping from each of `stages`, in order, to a `Cell`; none is called `head`",
    "source": "classes have a source file, and their methods call the first argument `self`",
    "parameters": "no two stages share a parameter",
    "seed": "the same seed gives the same weights",
    "features": "the last stage's mean over positions is (N, `features`), float32, and finite",
    "shapes": "`shapes(options)`, if it exists, returns the shapes of the built network",
    "weights": "each of `weights` names one of `layouts`, and both have options that the backbone takes",
    "records": (
        "each of `weights` has an https or file address, a hash of 8 to 64 digits or none, mean and std in 0..1, and a "
        "sane size"
    ),
    "labels": "`labels` of weights, where there are some, name each of their `classes`",
    "layouts": "rules of `layouts` are regular expressions, and each of `transpose` reorders all axes",
    "batch": "in evaluation, the features of an image do not depend on other images",
    "freeze": "a frozen stage does not change by a single byte while other stages train",
    "gradient": "each stage changes when it trains",
    "graph": "MindSpore compiles it, with the same results",
    "onnx": "MindSpore exports it to ONNX, and an ONNX runtime gives the same results",
    "matmul_form": "`matmul_form(stages)`, if it exists, has the same parameters and results",
    **PROCESS,
}
SIZE = 64  # pixels
SIDES = range(16, 4097)  # pixels


def check_backbone(
    backbone: Backbone | str,
    options: Mapping[str, Any] | None = None,
    *,
    size: int = SIZE,
    skip: Collection[str] = (),
) -> None:
    """Raise ``ContractError`` with every rule of backbones that one breaks.

    ``backbone`` is a component, or the name of an installed one; ``options`` are its options as in a recipe. Images
    have sides of ``size`` pixels. ``skip`` lists rules to skip. The check runs in this process on the CPU and takes
    seconds, because it compiles several graphs.
    """
    __tracebackhide__ = True
    from finetune.testing import networks

    inspection = inspect_component(Backbone, backbone, options, RULES, skip)
    with networks.prepare_mindspore(), inspection.going_on():
        check_declarations(inspection)
        stages = build_checked_stages(inspection)
        inspected = networks.NetworkCheck(inspection, stages, size)
        inspected.parameters()
        inspected.features()
        inspected.training()
        inspected.compiled()
    inspection.report()


def check_declarations(inspection: Inspection[Backbone]) -> None:
    """Check the names of stages, and the weights on offer."""
    backbone = inspection.component
    for name in backbone.stages:
        if name == "head" or not name.replace("-", "_").isidentifier():
            text = f"a stage is named '{name}'; use letters, digits and '_', and do not use 'head'"
            inspection.breaks("stages", text)
    if len(set(backbone.stages)) < len(backbone.stages):
        inspection.breaks("stages", f"two stages have the same name in {', '.join(backbone.stages)}; rename one")
    known = {OWN, *(layout.name for layout in backbone.layouts)}
    offers: dict[str, Mapping[str, Any]] = {f"layout '{layout.name}'": layout.options for layout in backbone.layouts}
    for name, weights in backbone.weights.items():
        offers[f"weights '{name}'"] = weights.options
        if weights.layout not in known:
            have = ", ".join(sorted(known))
            text = f"weights '{name}' have the unknown layout '{weights.layout}', known: {have}; add it to layouts"
            inspection.breaks("weights", text)
    for what, wanted in offers.items():
        if strange := sorted(wanted.keys() - backbone.options.model_fields.keys()):
            inspection.breaks(
                "weights",
                f"{what} set the option '{strange[0]}', which the backbone does not have; add it to its options",
            )
    inspect_offers(inspection)


def build_checked_stages(inspection: Inspection[Backbone]) -> dict[str, Any]:
    """Build the stages, and check that MindSpore can compile their classes."""
    from finetune.network.network import build_stages
    from finetune.testing.datasets import find_uncompilable

    stages: dict[str, Any] = {}
    with inspection.rule("stages", "build", "return a Cell for each stage", vital=True, draws=True):
        stages = build_stages(inspection.component, inspection.options)
    for cell in stages.values():
        for text in find_uncompilable(cell):
            inspection.breaks("source", text)
    if "source" in inspection.broken or "stages" in inspection.broken:
        raise StopCheck
    return stages


def inspect_offers(inspection: Inspection[Backbone]) -> None:
    """Check all weights and layouts of a backbone."""
    backbone = inspection.component
    for name, record in backbone.weights.items():
        with inspection.rule("records", f"weights '{name}'", "use the types that finetune.Weights declares"):
            for text in check_record(record):
                inspection.breaks("records", f"weights '{name}': {text}")
        with inspection.rule("labels", f"labels of weights '{name}'", "name a text file with one class a line"):
            if text := check_labels(record):
                inspection.breaks("labels", f"weights '{name}': {text}")
    for layout in backbone.layouts:
        with inspection.rule("layouts", f"layout '{layout.name}'", "use the types that finetune.Layout declares"):
            for text in check_layout(layout):
                inspection.breaks("layouts", f"layout '{layout.name}': {text}")


def check_record(record: Weights) -> Iterator[str]:
    """Yield the faults of a weights record."""
    yield from check_address(record)
    yield from check_hash(record)
    if fault := find_image_fault({"mean": record.mean, "std": record.std}):
        yield f"wrong {fault}"
    if record.size not in SIDES or record.resize not in SIDES or record.resize < record.size:
        sides = f"size is {record.size!r} and resize {record.resize!r}"
        yield f"{sides}; use {SIDES[0]} to {SIDES[-1]} pixels, and a resize that is not smaller than size"
    if record.accuracy is not None and not 0 <= record.accuracy <= 1:
        yield f"accuracy is {record.accuracy}; write top-1 accuracy as a number in 0..1"


def check_address(record: Weights) -> Iterator[str]:
    """Yield the faults of the address of weights."""
    parts = urlsplit(record.url)
    if parts.scheme == "file" and fetching.find_local_file(record.url) is None:
        yield f"url is '{record.url}', which does not exist; add the file to the package, or correct the address"
    elif parts.scheme not in ("https", "file") or (parts.scheme == "https" and not parts.hostname):
        yield f"url is '{record.url}', which is neither https nor file; use one of them"


def check_hash(record: Weights) -> Iterator[str]:
    """Yield the faults of the hash of weights, and contradictions with a hash in the file's name."""
    digest = record.sha256
    if not digest:
        return
    if not re.fullmatch(r"[0-9a-f]{8,64}", digest):
        yield f"sha256 is '{digest:.80}'; write 64 lower-case hex digits, at least the first 8 of them, or ''"
        return
    parts = re.split(r"[-_.]", PurePosixPath(urlsplit(record.url).path).name)
    named = [part for part in parts if re.fullmatch(r"(?=.*[0-9])(?=.*[a-f])[0-9a-f]{8,64}", part)]
    if named and not any(digest.startswith(part) or part.startswith(digest) for part in named):
        yield f"sha256 starts with {digest[:8]}, but the file's name has {named[-1]}; correct one of them"


def check_labels(record: Weights) -> str:
    """Return the fault of the class names of weights; duplicates are allowed, because they are numbered on reading."""
    if record.labels is None:
        return ""
    try:
        labels.read_list(record.labels, record.classes)
    except PluginError as error:
        return str(error)
    return ""


def check_layout(layout: Layout) -> Iterator[str]:
    """Yield the faults of the rules of a layout."""
    patterns = [pattern for pattern, _ in (*layout.rules, *layout.writes, *layout.transpose)]
    patterns += [*layout.ignore, *(layout.pieces[:1] if layout.pieces else ())]
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"'{pattern}' is not a regular expression ({error}); correct it"
    for pattern, axes in layout.transpose:
        if sorted(axes) != list(range(len(axes))):
            yield f"transpose has axes {axes} for '{pattern}'; write each axis once, such as (3, 2, 0, 1)"
