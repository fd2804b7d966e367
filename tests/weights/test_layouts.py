"""From a file's names to a backbone's own: the first layout that fits completely, or an error that says why not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune.components import Backbone, Layout
from finetune.errors import WeightsError
from finetune.weights.layouts import find_layout, format_names, name_for_file, translate

THEIRS = Layout(
    name="theirs",
    rules=((r"(?:net\.)?features\.(\d)\.w", r"layer\1.weight"), (r"last\.(weight|bias)", r"head.fc.\1")),
    ignore=(r"moments\..*",),
    options={"pool": "same"},
)
SECOND = Layout(name="second", rules=((r"body\.(\d)", r"layer\1.weight"),), options={"pool": "other"})
TOY = Backbone(name="toy", build=lambda options: {}, stages=("layer1", "layer2"), features=4, layouts=(THEIRS, SECOND))
EXPECTED = ("layer1.weight", "layer2.weight", "head.fc.weight", "head.fc.bias")


def test_own_names_come_first_and_stay() -> None:
    found = translate({name: number for number, name in enumerate(EXPECTED)}, EXPECTED, TOY)
    assert (found.layout, found.tensors) == ("finetune", {name: number for number, name in enumerate(EXPECTED)})
    assert (found.ignored, found.unexpected, found.options) == ((), {}, {})


def test_the_first_layout_that_fits_renames_everything() -> None:
    file = {"net.features.1.w": 1, "features.2.w": 2, "last.weight": 3, "last.bias": 4, "moments.features.1.w": 5}
    found = translate(file, EXPECTED, TOY)
    assert (found.layout, found.options) == ("theirs", {"pool": "same"})
    assert found.tensors == {"layer1.weight": 1, "layer2.weight": 2, "head.fc.weight": 3, "head.fc.bias": 4}
    assert found.ignored == ("moments.features.1.w",)
    assert translate({"body.1": 1, "body.2": 2}, EXPECTED, TOY).layout == "second"


def test_only_the_classifier_may_differ() -> None:
    file = {"layer1.weight": 1, "layer2.weight": 2, "head.other.weight": 3}
    found = translate(file, EXPECTED, TOY)
    assert found.tensors == {"layer1.weight": 1, "layer2.weight": 2}
    assert found.unexpected == {"head.other.weight": 3}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (["features.1.w"], "nearest layout, 'theirs', it lacks 1: 'layer2.weight'; give"),
        (["features.1.w", "features.2.w", "x"], "'theirs', it has no place for 1: 'x'"),
        (["features.1.w", "features.2.w", "features.3.w"], "'theirs', it has no place for 1: 'features.3.w'"),
        (["features.1.w", "net.features.1.w"], "lacks 1: 'layer2.weight'; has no place for 1: 'net.features.1.w'"),
        (["layer1.weight", "body.2"], "'finetune', it lacks 1: 'layer2.weight'; has no place for 1: 'body.2'"),
        (["moments.body.1"], "'theirs', it lacks 2: 'layer1.weight', 'layer2.weight'"),
        ([], "these are not the weights of 'toy'.*or backbone.weights=none for a random start"),
        (["layer1.weight\x1b[31m"], r"'layer1.weight\\x1b\[31m'"),
    ],
)
def test_anything_else_is_an_error_that_names_the_nearest_layout(file: list[str], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        translate(dict.fromkeys(file, 0), EXPECTED, TOY)


def test_own_names_become_the_files_and_back() -> None:
    layout = replace(THEIRS, writes=((r"layer(\d)\.weight", r"features.\1.w"), (r"head\.fc\.(.*)", r"last.\1")))
    theirs = name_for_file(EXPECTED, layout)
    assert theirs == dict(zip(EXPECTED, ("features.1.w", "features.2.w", "last.weight", "last.bias"), strict=True))
    assert translate({name: own for own, name in theirs.items()}, EXPECTED, TOY).tensors == {n: n for n in EXPECTED}


@pytest.mark.parametrize("name", ["head.hidden.weight", "layer12.weight", "head.fc.strange"])
def test_names_that_a_layout_would_not_take_back_are_not_written(name: str) -> None:
    layout = replace(THEIRS, writes=((r"layer(\d+)\.weight", r"features.\1.w"), (r"head\.fc\.(.*)", r"last.\1")))
    with pytest.raises(WeightsError, match=rf"layout 'theirs' has no name for 1: '{name}'; write safetensors"):
        name_for_file(["layer1.weight", name], layout)


def test_long_lists_are_cut_and_counted() -> None:
    assert format_names("lacks", "ab") == "lacks 2: 'a', 'b'"
    assert format_names("lacks", "abcdefghijklm") == "lacks 13: " + ", ".join(repr(c) for c in "abcdefghij") + ", …"
    assert format_names("lacks", "") == ""


def test_a_layout_is_known_by_the_names_alone() -> None:
    assert getattr(find_layout(["layer1.weight", "head.fc.bias"], TOY), "name", None) == "finetune"
    assert find_layout(["features.1.w", "moments.x"], TOY) is THEIRS
    assert find_layout(["body.1"], TOY) is SECOND
    assert find_layout(["features.1.w", "x"], TOY) is None
