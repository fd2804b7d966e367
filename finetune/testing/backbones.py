"""``check_backbone``: checks the contract of backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.components import Backbone
from finetune.testing import surroundings as offered
from finetune.testing.contract import COMMON, PROCESS, Inspection, StopCheck, inspect_component
from finetune.weights.layouts import OWN

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

RULES = {
    **COMMON,
    "stages": "`build(options)` returns a mapping from each of `stages`, in order, to a `Cell`; none is called `head`",
    "source": "classes have a source file, and their methods call the first argument `self`",
    "parameters": "no two stages share a parameter",
    "seed": "the same seed gives the same weights",
    "features": "the last stage's mean over positions is (N, `features`), float32, and finite",
    "shapes": "`shapes(options)`, if it exists, returns the shapes of the built network",
    "weights": "each of `weights` names one of `layouts`, and both have options that the backbone takes",
    **offered.RULES,
    "batch": "in evaluation, the features of an image do not depend on other images",
    "freeze": "a frozen stage does not change by a single byte while other stages train",
    "gradient": "each stage changes when it trains",
    "graph": "MindSpore compiles it, with the same results",
    "onnx": "MindSpore exports it to ONNX, and an ONNX runtime gives the same results",
    "products": "`products(stages)`, if it exists, has the same parameters and results",
    **PROCESS,
}
SIZE = 64  # pixels


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
    offered.inspect_offers(inspection)


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
