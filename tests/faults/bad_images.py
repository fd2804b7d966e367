"""Images whose bands cannot be taken for colours, and recipes that some of the images do not suit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.data import tiffs
from tests.faults.case import Case, case
from tests.faults.data_makers import FOLDER, NANO, odd, rows, sound, table
from tests.faults.data_makers import image as photo

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.case import Make


def tiff(bands: int, kind: str = "u1", **how: Any) -> Make:
    """Return what checks sound photos and a TIFF of these bands."""
    return odd(lambda path: tiffs.write(path.with_suffix(".tif"), np.ones((8, 8, bands), kind), **how))


def recipe(text: str) -> Make:
    """Return what checks a recipe with these lines on sound photos of 8 pixels."""

    def make(folder: Path) -> list[str]:
        sound(folder / "photos")
        (folder / "r.yaml").write_text(f"{NANO}dataset: {{{FOLDER}}}\n{text}\n")
        return ["check", "r.yaml"]

    return make


def run(text: str) -> Make:
    """Return what runs the same."""

    def make(folder: Path) -> list[str]:
        return ["run", *recipe(text)(folder)[1:]]  # type: ignore[list-item]

    return make


def ops(*lines: str) -> str:
    """Return an augmentation of these transforms."""
    return f"augment: [{{use: albumentations, ops: [{', '.join(lines)}]}}]"


CROP = ops("{RandomCrop: {height: 9, width: 9, p: 0.01}}")
WEIGHTS = "loss: {class_weights: {redd: 2, blue: 1, tan: 1}}"
TWO_BANDS = b"\xff\xd8\xff\xc0\x00\x0e\x08\x00\x08\x00\x08\x02\x01\x11\x00\x02\x11\x00\xff\xd9"
EXCEL = "sep=;\npath;label\nphotos/red/0.PNG;red\nphotos/blue/0.png;blue\n"

CASES: list[Case] = [
    case("I2", "TIFF of 5 bands", tiff(5, photometric=1), 3, "x.tif: has 5 bands, none of which", "export the three"),
    case(
        "I2", "RGB and near infrared", tiff(4, extra=(0,)), 3, "x.tif: has 4 bands: red, green and blue", "export the"
    ),
    case("I2", "fourth band undeclared", tiff(4), 3, "x.tif: has 4 bands: red, green and blue, and one", "export the"),
    case("I2", "grey and a mask", tiff(2, photometric=1, extra=(0,)), 3, "x.tif: has 2 bands: grey, and one", "export"),
    case(
        "I2", "RGB in real numbers", tiff(3, "f4"), 3, "x.tif: holds real numbers of 32 bits in 3 bands", "save it as"
    ),
    case("I2", "signed integers", tiff(1, "i2", photometric=1), 3, "x.tif: holds signed 16-bit integers", "unsigned"),
    case(
        "I2",
        "0 is white",
        tiff(1, "u2", photometric=0),
        3,
        "x.tif: holds grey values of more than 8 bits in which 0",
        "save",
    ),
    case("I2", "LERC", tiff(3, more={259: 34887}), 3, "x.tif: is compressed with LERC", "save it with LZW or without"),
    case("I2", "raw data", tiff(1, "u2", photometric=32803), 3, "x.tif: holds raw data of a camera's sensor", "export"),
    case("I2", "JPEG of 2 bands", photo("x.jpg", TWO_BANDS), 3, "red/x.jpg: is a JPEG with 2 bands; save it as RGB"),
    case(
        "I2", "crop larger than the photos", recipe(CROP), 6, "RandomCrop on 8x8 pixels: ", "enlarge small images first"
    ),
    case("I2", "the same, run", run(CROP), 6, "RandomCrop on 8x8 pixels: ", "enlarge small images first"),
    case(
        "I6",
        "weight of no class",
        recipe(WEIGHTS),
        2,
        "loss.class_weights: no class named 'redd'; did you mean 'red'?",
        "'tan'",
    ),
    case(
        "N6",
        "nothing to blend with",
        recipe("train: {mixup: 0.2, batch_size: 1}"),
        2,
        "train.mixup has no effect",
        "raise",
    ),
    case(
        "I7",
        "ending in capitals",
        table(EXCEL),
        3,
        "t.csv:3: no file '",
        "did you mean 'photos/red/0.png', which differs",
    ),
    case("I7", "another ending", rows("photos/red/0.jpg,red"), 3, "t.csv:8: no file '", "which differs in its ending?"),
    case(
        "I7", "path as an address", rows("photos/red/0%2Epng,red"), 3, "t.csv:8: no file '", "mean 'photos/red/0.png'"
    ),
    case(
        "I7",
        "no header",
        table("photos/red/0.png,red\n"),
        3,
        "t.csv' has no header: its first line",
        "start the file with",
    ),
]
