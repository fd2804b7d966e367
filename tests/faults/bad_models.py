"""Models whose description is damaged, and places that cannot be written to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.faults.case import Case, case
from tests.faults.data_makers import put, use

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.case import Make

AGAIN = "copy the model folder again"
LONG = "x" * 300


def changed(*gone: str, **values: Any) -> Make:
    """Return what uses a model whose description lacks some keys and has others."""

    def act(folder: Path) -> None:
        path = folder / "m" / "model.json"
        about = {key: value for key, value in json.loads(path.read_text()).items() if key not in gone}
        path.write_text(json.dumps(about | values))

    return use("predict", "m", "photos", act=act)


def image(**values: Any) -> Make:
    """Return what uses a model of another preprocessing."""
    sound = {"size": 16, "resize": 16, "keep_aspect": True, "mean": [0.5] * 3, "std": [0.5] * 3, "background": [0] * 3}
    return changed(image=sound | values)


def no_weights(folder: Path) -> None:
    """Take the weights away."""
    (folder / "m" / "weights.safetensors").unlink()


def folder_for_weights(folder: Path) -> None:
    """Put a folder in the place of the weights."""
    no_weights(folder)
    (folder / "m" / "weights.safetensors").mkdir()


CASES: list[Case] = [
    case("C3", "model.json without classes", changed("classes"), 4, "model.json is damaged (classes: ", AGAIN),
    case("C3", "model.json without backbone", changed("backbone"), 4, "model.json is damaged (backbone: ", AGAIN),
    case("C3", "model.json without features", changed("features"), 4, "model.json is damaged (features: ", AGAIN),
    case("C3", "model.json without recipe", changed("recipe"), 4, "model.json is damaged (recipe: ", AGAIN),
    case("C3", "model.json with text for backbone", changed(backbone="x"), 4, "is damaged (backbone: ", AGAIN),
    case("C3", "model.json with text for classes", changed(classes="ab"), 4, "is damaged (classes: ", AGAIN),
    case("C3", "model.json with numbers for classes", changed(classes=[1, 2]), 4, "is damaged (classes.0: ", AGAIN),
    case("C3", "model.json with a class twice", changed(classes=["a", "a"]), 4, "list of different names", AGAIN),
    case("C3", "model.json of no features", changed(features=0), 4, "is damaged (features: ", AGAIN),
    case("C3", "model.json of another head", changed(head={"use": "gone"}), 4, "is damaged (head.", AGAIN),
    case("C3", "model.json of no size", image(size=-1), 4, "is damaged (image.size: ", AGAIN),
    case("C3", "model.json with one mean", image(mean=[0.5]), 4, "is damaged (image.mean.1: ", AGAIN),
    case("C3", "model.json with a deviation of 0", image(std=[0, 1, 1]), 4, "is damaged (image.std.0: ", AGAIN),
    case("C3", "model.json, unknown option", changed(recipe={"inference": {"x": 1}}), 4, "is damaged (x: ", AGAIN),
    case("C3", "model.json of a later version", changed(version=9), 4, "has version 9", "install a newer finetune"),
    case("C3", "model.json of a backbone that is gone", changed(backbone={"use": "gone", "options": {}}), 2, "'gone'"),
    case(
        "C3",
        "model.json 200,000 deep",
        use("predict", "m", "photos", act=lambda folder: put(folder / "m" / "model.json", b"[" * 200_000)),
        4,
        "model.json is damaged",
        AGAIN,
    ),
    case(
        "C3", "no weights", use("predict", "m", "photos", act=no_weights), 4, "m: weights.safetensors is missing", AGAIN
    ),
    case(
        "C3",
        "folder for weights",
        use("eval", "m", "photos", act=folder_for_weights),
        4,
        "m: weights.safetensors is missing",
        AGAIN,
    ),
    case("C3", "model of 300 letters", use("predict", LONG, "photos"), 2, "no model in xxx", "give a run folder"),
    case("I5", "photo of 300 letters", use("predict", "m", LONG), 2, "no such photo or folder: xxx"),
    case("I5", "photo without a name", use("predict", "m", ""), 2, "no such photo or folder: ''"),
    case("I5", "data without a name", use("eval", "m", ""), 2, "no data given; name a folder"),
    case("I5", "data of 300 letters", use("eval", "m", LONG), 3, "no data at xxx", "name a folder"),
    case(
        "Y7", "predictions below a photo", use("predict", "m", "photos", "--csv", "photos/red/0.png/x.csv"), 7, "a file"
    ),
    case(
        "Y7",
        "export into a folder",
        use("export", "m", "--output", "x.onnx", act=lambda folder: (folder / "x.onnx").mkdir()),
        2,
        "'x.onnx' is a folder; give the name of a file in it that ends with .onnx",
    ),
    case(
        "Y7", "export to here", use("export", "m", "--output", "."), 2, "'.' is a folder; give the name of a file in it"
    ),
    case(
        "Y7", "predictions into a folder", use("predict", "m", "photos", "--csv", "photos"), 2, "this is a folder; na"
    ),
]
