"""Backbones that break one rule each: what ``check_backbone`` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from finetune import Backbone, Dataset, Layout
from finetune.testing import check_backbone
from finetune.testing.backbones import RULES
from tests.testing.bad_datasets import Loose
from tests.testing.bad_offers import SOUND, WRONG, WRONG_LAYOUTS, record
from tests.testing.broken import broken

pytestmark = pytest.mark.once

LATE = {"freeze", "gradient", "graph", "onnx", "matmul_form"}  # what takes long, left out where another rule is tried
Cells = Callable[[Any], Mapping[str, Any]]


def mine(build: Cells, **more: Any) -> Backbone:
    """Return a backbone of two stages."""
    return Backbone(**{"name": "mine", "build": build, "stages": ("stem", "body"), "features": 8} | more)


def sound(options: Any) -> Mapping[str, Any]:
    from tests.testing import cells

    return cells.sound()


def ending(*names: str) -> Cells:
    """Return what builds two stages, the second ending in cells of these classes."""

    def build(options: Any) -> Mapping[str, Any]:
        from tests.testing import cells

        return cells.after(*(getattr(cells, name)() for name in names))

    return build


def sharing(options: Any) -> Mapping[str, Any]:
    from tests.testing import cells

    stem = cells.convolution()
    return {"stem": stem, "body": cells.Scaled(stem.weight)}


def random_weights(options: Any) -> Mapping[str, Any]:
    from mindspore import Tensor

    found = sound(options)
    found["stem"].weight.set_data(Tensor(np.random.default_rng().random((8, 3, 4, 4), np.float32)))
    return found


def printing(options: Any) -> Mapping[str, Any]:
    print("building …")
    return sound(options)


def rows(factor: float) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return ``matmul_form`` of one stage."""

    def matmul_form(stages: Mapping[str, Any]) -> Mapping[str, Any]:
        from tests.testing import cells

        return {"stem": cells.Rows(stages["stem"], factor)}

    return matmul_form


def stem(options: Any) -> Mapping[str, Any]:
    return {"stem": sound(options)["stem"]}


def fresh(stages: Mapping[str, Any]) -> Mapping[str, Any]:
    return stem(None)


def offering(layout: Layout | None = None, **said: Any) -> Backbone:
    """Return a backbone with one of weights, in a layout of its own."""
    return mine(sound, weights={"v1": record(**said)}, layouts=(layout or Layout(name="mine", rules=()),))


BROKEN: list[tuple[str, Any, str, str]] = [
    ("no backbone", Dataset(name="mine", build=print), "component", "finetune_backbones returned Dataset("),
    ("no stages", mine(sound, stages=()), "component", "backbone 'mine' has no stages; name at least one"),
    (
        "loose options",
        mine(sound, options=Loose),
        "options",
        "an unknown key is accepted, so a misspelt key has no effect",
    ),
    (
        "fails",
        mine(lambda options: 1 / 0),
        "stages",
        "build raised ZeroDivisionError: division by zero; return a Cell ",
    ),
    (
        "another order",
        mine(sound, stages=("body", "stem")),
        "stages",
        "backbone 'mine' built stages stem, body but declares body, stem; make them equal, in the same order",
    ),
    (
        "no cells",
        mine(lambda options: {"stem": 1, "body": 2}),
        "stages",
        "backbone 'mine' built stage 'stem' as int; return a mindspore.nn.Cell for each stage",
    ),
    (
        "a stage called head",
        mine(sound, stages=("stem", "head")),
        "stages",
        "a stage is named 'head'; use letters, digits and '_', and do not use 'head'",
    ),
    (
        "a stage with a dot",
        mine(sound, stages=("stem.0", "body")),
        "stages",
        "a stage is named 'stem.0'; use letters, digits and '_', and do not use 'head'",
    ),
    (
        "two stages of one name",
        mine(sound, stages=("stem", "stem")),
        "stages",
        "two stages have the same name in stem, stem; rename one",
    ),
    (
        "not self",
        mine(ending("This")),
        "source",
        "construct of class This names its first argument 'this'; name it self, which MindSpore requires",
    ),
    (
        "typed in",
        mine(ending("Typed")),
        "source",
        "construct of class Typed has no source file, which MindSpore needs to compile it; define the "
        "class in a module, not "
        "in exec or a terminal",
    ),
    (
        "a shared parameter",
        mine(sharing),
        "parameters",
        "stages 'stem' and 'body' share weight; do not share it, or merge the stages",
    ),
    (
        "random weights",
        mine(random_weights),
        "seed",
        "built twice with one seed, 'stem: weight' differs; use MindSpore's initialisers, or numpy with "
        "mindspore.get_seed()",
    ),
    (
        "another width",
        mine(sound, features=16),
        "features",
        "the mean over positions is float32 of shape 4x8, but features is 16; make the last stage return (N, "
        "features, H, W) float32",
    ),
    (
        "half precision",
        mine(ending("Halves")),
        "features",
        "the mean over positions is float16 of shape 4x8, but features is 8; make the last stage return (N, "
        "features, H, W) float32",
    ),
    (
        "not finite",
        mine(ending("Infinite")),
        "features",
        "features are not finite numbers; check initialisers and divisions",
    ),
    ("blind", mine(ending("Blind")), "features", "two images have the same features; compute them from the input"),
    (
        "stages that do not fit",
        mine(lambda options: {"stem": sound(options)["stem"], "body": sound(options)["stem"]}),
        "features",
        "the stages, given float32 of shape 4x3x64x64, raised RuntimeError: For 'Conv2D', 'C_in' of input",
    ),
    (
        "other shapes",
        mine(sound, shapes=lambda options: {"stem.weight": (8, 3, 3, 3)}),
        "shapes",
        "shapes returns None for 'body.0.weight', but the built network has (8, 8, 3, 3); make them "
        "equal (None means missing)",
    ),
    (
        "an unknown layout",
        mine(sound, weights={"v1": record()}),
        "weights",
        "weights 'v1' have the unknown layout 'mine', known: finetune; add it to layouts",
    ),
    (
        "an unknown option",
        mine(sound, layouts=(Layout(name="mine", rules=(), options={"pool": "same"}),)),
        "weights",
        "layout 'mine' set the option 'pool', which the backbone does not have; add it to its options",
    ),
    *((f"record {number}", offering(**said), rule, text) for number, (said, rule, text) in enumerate(WRONG)),
    *((f"layout {number}", offering(layout), "layouts", text) for number, (layout, text) in enumerate(WRONG_LAYOUTS)),
    (
        "statistics of the batch",
        mine(ending("OfBatch")),
        "batch",
        "the features of an image depend on the batch; in evaluation use stored statistics, as nn.BatchNorm2d "
        "does, not those of the batch",
    ),
    (
        "counts",
        mine(ending("Counting")),
        "freeze",
        "'body.1.calls' changes in evaluation mode; do not change parameters in construct, nor any state if "
        "`self.training` is False",
    ),
    (
        "no gradient",
        mine(ending("Stopped")),
        "gradient",
        "stage 'stem' does not train: a step changes none of its 1 parameters; look for stop_gradient, rounding, or "
        "unused parameters",
    ),
    (
        "numpy",
        mine(ending("Hosted")),
        "onnx",
        "raised AttributeError: In JIT strict mode, cannot get attrib",
    ),
    (
        "another answer when compiled",
        mine(ending("OnlyPyNative")),
        "graph",
        "compiling raised RuntimeError: Failed to compile in GRAPH_MODE",
    ),
    (
        "no ONNX",
        mine(ending("Unexported")),
        "onnx",
        "use operators that mindspore.export supports, and x = x + y instead",
    ),
    (
        "other matmul_form",
        mine(stem, stages=("stem",), matmul_form=rows(1.5)),
        "matmul_form",
        "as matrix products, features differ from PyNative mode by",
    ),
    (
        "matmul_form of other parameters",
        mine(stem, stages=("stem",), matmul_form=fresh),
        "matmul_form",
        "matmul_form(stages) returns different stages or parameters; use the given ones",
    ),
    (
        "matmul_form of unknown stages",
        mine(stem, stages=("stem",), matmul_form=rows(1.0), matmul_form_avx2=("layer9",)),
        "matmul_form",
        "matmul_form_avx2 names layer9, which are not stages; use names of stages",
    ),
    ("prints", mine(printing), "process", "prints 'building …\\n"),
]


@pytest.mark.parametrize(("component", "rule", "text"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN])
def test_a_broken_rule_says_what_to_do(component: Any, rule: str, text: str) -> None:
    found = broken(check_backbone, component, skip=() if rule in LATE else LATE)
    if rule == "onnx" and "strict mode" in text and found and found[0][0] == "graph":
        rule = "graph"  # once a process has exported much, MindSpore refuses such cells when it compiles them
    assert rule in [each[0] for each in found], found
    assert [each[0] for each in found] == [rule], found
    assert text in dict(found)[rule]


@pytest.mark.parametrize("said", SOUND)
def test_sound_weights_break_no_rule(said: dict[str, Any]) -> None:
    check_backbone(offering(**said), skip=LATE | {"seed", "batch"})


def test_every_rule_is_broken_once() -> None:
    assert {rule for _, _, rule, _ in BROKEN} == RULES.keys()


def test_the_mode_of_mindspore_stays_as_it_was() -> None:
    import mindspore as ms

    try:
        for mode in (ms.PYNATIVE_MODE, ms.GRAPH_MODE):
            ms.set_context(mode=mode)
            check_backbone(mine(sound), skip=LATE)
            assert ms.get_context("mode") == mode
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)


def test_products_that_agree_are_in_order() -> None:
    check_backbone(mine(stem, stages=("stem",), matmul_form=rows(1.0)))
