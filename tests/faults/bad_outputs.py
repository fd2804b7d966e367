"""Places where a command would lose a file, and devices that the machine does not have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.faults.case import Case, case
from tests.faults.data_makers import put, use

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.case import Make

EXISTS = ("the file exists", "choose another name or pass --force")
READ = ("the command reads this file", "choose another name")
ALONE = ("cannot hold both the file and the line of --json", "name a file")
GONE = "dataset: {use: folder, root: gone}\nbackbone: {weights: gone.ckpt}\n"


def over(name: str, *words: str) -> Make:
    """Return what runs a command where a file of this name exists."""
    return use(*words, act=lambda folder: put(folder / name, b"mine"))


def recipe(*words: str) -> Make:
    """Return what uses a recipe whose weights and photos are missing."""

    def make(folder: Path) -> tuple[str, ...]:
        put(folder / "r.yaml", GONE.encode())
        return words

    return make


def link(folder: Path) -> None:
    """Make a table that is a photo by another name."""
    os.link(folder / "photos" / "red" / "0.png", folder / "t.csv")


CASES: list[Case] = [
    case("Y7", "predictions over a file", over("t.csv", "predict", "m", "photos", "--csv", "t.csv"), 2, *EXISTS),
    case(
        "Y7",
        "predictions over a photo",
        use("predict", "m", "photos/red/0.png", "--csv", "photos/red/0.png", "--force"),
        2,
        *READ,
    ),
    case(
        "Y7", "a photo by a hard link", use("predict", "m", "photos", "--csv", "t.csv", "--force", act=link), 2, *READ
    ),
    case("Y7", "over a model", use("predict", "m", "photos", "--csv", "m/model.json", "--force"), 2, *READ),
    case("Y7", "export over a file", over("x.onnx", "export", "m", "--output", "x.onnx"), 2, *EXISTS),
    case("Y7", "labels of an export over a file", over("x.onnx.json", "export", "m", "--output", "x.onnx"), 2, *EXISTS),
    case("Y7", "schema over a file", over("s.json", "schema", "--output", "s.json"), 2, *EXISTS),
    case("Y7", "copy over a file", over("q.yaml", "cp", "quickstart", "q.yaml"), 2, *EXISTS),
    case("Y7", "recipe over a file", over("photos.yaml", "new", "recipe", "photos"), 2, *EXISTS),
    case(
        "Y7",
        "a broken link",
        use("schema", "--output", "l", act=lambda f: (f / "l").symlink_to("x")),
        2,
        *EXISTS,
    ),
    case("Y7", "an export and --json", use("export", "m", "--output", "-"), 2, *ALONE),
    case(
        "Y7",
        "a pack as standard output",
        use("pack", "photos", "-"),
        2,
        "cannot hold a pack, which is a folder",
        "name a folder",
    ),
    case("Y5", "no NPU, no photos, no weights", recipe("run", "r.yaml", "runner.device=ascend"), 2, "/dev/davinci0"),
    case("Y5", "no GPU, no photos, no weights", recipe("check", "r.yaml", "runner.device=gpu"), 2, "/dev/nvidia0"),
    case(
        "Y4",
        "more devices than there are",
        recipe("run", "r.yaml", "runner.devices=999"),
        2,
        "too many processes for",
        "or fewer",
    ),
]
