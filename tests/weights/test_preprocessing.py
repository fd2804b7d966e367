"""Which images weights expect: who says so, what is used, and what the user is told where that is not certain."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.components import IMAGENET_MEAN, IMAGENET_STD, Backbone, Layout
from finetune.weights import examining, fetching, preprocessing
from finetune.weights.formats import tensorfile
from finetune.weights.preprocessing import KEYS, find_preprocessing
from tests.weights.toy import THEIRS, record, toy

pytestmark = pytest.mark.usefixtures("home")

ARRAYS = {"f.conv.weight": np.ones((4, 2), np.float32)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
INCEPTION = {"size": 299, "resize": 341, "keep_aspect": True, **HALF}
LINE = "image: {size: 299, resize: 341, keep_aspect: true, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}"
USUAL = "image: {size: 224, resize: 256, keep_aspect: true, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}"
TIMM = {"architecture": "toy", "pretrained_cfg": {"input_size": [3, 299, 299], "crop_pct": 0.875, **HALF}}
FACE = {
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "size": {"shortest_edge": 341},
    "crop_size": {"height": 299, "width": 299},
    "resample": 3,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file in the layout ``theirs`` that no backbone knows."""
    path = tmp_path / "mine.safetensors"
    tensorfile.write_tensors(path, ARRAYS, {})
    return path


def offer(**said: Any) -> Any:
    """Return the record of another file of the layout."""
    return record(Path("elsewhere"), **said)


def found(word: Path | str, backbone: Backbone) -> preprocessing.Preprocessing:
    source = fetching.resolve(str(word), backbone)
    assert source is not None
    return find_preprocessing(source, backbone)


def test_offers_of_the_layout_that_agree_are_used_and_reported(file: Path) -> None:
    found_here = found(file, toy(a=offer(**INCEPTION), b=offer(**INCEPTION, accuracy=0.8)))
    assert found_here.image == INCEPTION
    said = found_here.message()
    assert said == (f"weights '{file}': using the preprocessing of weights 'a', 'b': {LINE.removeprefix('image: ')}")
    assert found_here.report() == {
        "image": INCEPTION,
        "why": "weights 'a', 'b'",
        "certain": False,
        "alternatives": [],
    }


def test_offers_of_other_layouts_do_not_count(file: Path) -> None:
    backbone = toy(a=offer(**INCEPTION), other=offer(layout="finetune", size=64, resize=64))
    assert found(file, backbone).image == INCEPTION


def test_offers_that_disagree_are_named_with_a_line_for_each(file: Path) -> None:
    found_here = found(file, toy(a=offer(), b=offer(**INCEPTION), c=offer()))
    assert found_here.image == {
        "size": 224,
        "resize": 256,
        "keep_aspect": True,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }
    assert found_here.message() == (
        f"warning: sources disagree on the images that the weights '{file}' expect; add one of these lines to the "
        f"recipe:\n  weights 'a', 'c' (used): {USUAL}\n  weights 'b': {LINE}"
    )
    assert found_here.report()["alternatives"] == [{"from": "weights 'b'", "image": INCEPTION}]


@pytest.mark.parametrize(
    ("keys", "quiet"),
    [((), True), (("mean", "std"), True), (("size",), True), (("resize",), False), (KEYS, False)],
)
def test_what_the_recipe_states_needs_no_warning(keys: tuple[str, ...], quiet: bool, file: Path) -> None:
    found_here = found(file, toy(a=offer(resize=256), b=offer(resize=232)))
    assert ("disagree" not in found_here.message(keys)) is quiet


def test_lines_have_only_what_the_recipe_leaves_open(file: Path) -> None:
    found_here = found(file, toy(a=offer(), b=offer(**INCEPTION)))
    assert found_here.message(("resize", "mean", "std")).splitlines()[1:] == [
        "  weights 'a' (used): image: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}",
        "  weights 'b': image: {mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}",
    ]


def test_nothing_known_is_a_warning(file: Path) -> None:
    found_here = found(file, toy())
    assert found_here.image["mean"] == IMAGENET_MEAN
    assert found_here.message() == (
        f"warning: it is unknown which images the weights '{file}' expect; using ImageNet's mean and std; if that is "
        f"wrong, correct this line and add it to the recipe:\n  {USUAL}"
    )


def test_an_address_tells_nothing_of_its_images(file: Path) -> None:
    from tests.weights.toy import hashed

    word = f"{file.as_uri()}#sha256={hashed(file)}"
    assert found(word, toy(a=offer(**INCEPTION))).image == INCEPTION
    assert found(word, toy(a=record(file, size=64, resize=64))).certain


def test_a_file_of_this_project_and_a_known_one_are_certain(file: Path) -> None:
    known = found(file, toy(a=record(file, **INCEPTION), b=offer()))
    assert (known.image, known.certain, known.message()) == (INCEPTION, True, "")
    tensorfile.write_tensors(file, ARRAYS, {"image": json.dumps({"size": 64, "resize": 72})})
    own = found(file, toy(b=offer(**INCEPTION)))
    assert (own.image["size"], own.image["resize"], own.image["mean"]) == (64, 72, IMAGENET_MEAN)
    assert (own.certain, own.why, own.message()) == (True, "the file itself", "")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("config.json", TIMM),
        ("preprocessor_config.json", FACE),
        ("mine.json", TIMM["pretrained_cfg"]),
        ("model.json", {"image": INCEPTION}),
    ],
)
def test_a_configuration_next_to_the_file_is_used(name: str, data: Any, file: Path) -> None:
    file.with_name(name).write_text(json.dumps(data))
    found_here = found(file, toy())
    assert found_here.image == INCEPTION
    assert found_here.message().startswith(f"weights '{file}': using the preprocessing of '{name}' next to")
    assert ("which resizes images bicubic" in found_here.why) is (data is FACE)


def test_what_the_file_says_against_all_offers_is_a_warning_with_both(file: Path) -> None:
    file.with_name("config.json").write_text(json.dumps(TIMM))
    found_here = found(file, toy(a=offer(), b=offer(size=227)))
    assert found_here.image == INCEPTION
    assert found_here.message().splitlines()[1:] == [
        f"  'config.json' next to the file (used): {LINE}",
        f"  weights 'a': {USUAL}",
        f"  weights 'b': {USUAL.replace('224, resize', '227, resize')}",
    ]
    assert "warning" not in found(file, toy(a=offer(), b=offer(**INCEPTION))).message()  # one of them agrees


def test_texts_in_the_file_come_first(file: Path) -> None:
    tensorfile.write_tensors(file, ARRAYS, {"mean": "[0.5, 0.5, 0.5]", "std": "[0.5, 0.5, 0.5]", "format": "pt"})
    file.with_name("config.json").write_text(json.dumps({"mean": [0.4] * 3, "std": [0.2] * 3}))
    found_here = found(file, toy(a=offer(size=96, resize=96, **HALF)))
    assert found_here.image == {"size": 96, "resize": 96, "keep_aspect": True, **HALF}
    conflict = found_here.report()["alternatives"]
    assert [each["from"] for each in conflict] == ["'config.json' next to the file"]
    assert conflict[0]["image"]["mean"] == (0.4, 0.4, 0.4)


def test_a_folder_of_hugging_face_is_a_file_with_its_configuration(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "toy.a1_in1k"
    folder.mkdir()
    file.rename(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(TIMM))
    found_here = found(folder, toy())
    assert (found_here.image, found_here.why) == (INCEPTION, "'config.json' next to the file")


def test_weights_inspect_knows_the_same(file: Path) -> None:
    backbone = replace(toy(a=offer(**INCEPTION)), shapes=lambda options: {"stem.conv.weight": (4, 2)})
    report = examining.build_report(examining.examine(file, [backbone]))
    assert report["preprocessing"]["image"] == INCEPTION
    assert report["preprocessing"]["why"] == "weights 'a'"
    other = replace(backbone, layouts=(Layout(name="none", rules=()),))
    assert examining.build_report(examining.examine(file, [other]))["preprocessing"] is None
    assert THEIRS in backbone.layouts
