"""Folders that can be read in several ways, names that begin with a tilde, and photos that `predict` must name."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.faults.case import Case, case
from tests.faults.data_makers import FOLDER, data, encoded, put, sound, use

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.case import Make
    from tests.faults.data_makers import Act

WAYS = "can be read in more than one way"
HOME = "no home folder for '~nobody-has-this-name/"


def tree(*folders: str, more: str = "") -> Make:
    """Return what checks three photos in each of these folders, and nothing else."""

    def act(folder: Path) -> None:
        shutil.rmtree(folder / "photos")
        for seed, path in enumerate(folders):
            sound(folder / "photos" / path, (".",), seed)

    return data(FOLDER + more, act)


def alone(act: Act) -> Make:
    """Return what labels a folder that holds only what was put there."""

    def make(folder: Path) -> None:
        shutil.rmtree(folder / "photos")
        (folder / "photos").mkdir()
        act(folder / "photos")

    return use("predict", "m", "photos", act=make)


def link(name: str) -> Act:
    """Return what makes a broken link."""
    return lambda root: (root / name).symlink_to("gone")


def photo(name: str) -> Act:
    """Return what writes a photo by this name."""
    return lambda root: put(root / name, encoded("JPEG"))


CASES: list[Case] = [
    case("I6", "classes in a folder next to them", tree("a", "b", "x/a", "x/b"), 3, WAYS, 'train: "*", test: "x/*"}'),
    case("I6", "test next to another class", tree("control/a", "control/b", "test/a", "test/b"), 3, WAYS, '"test/*"}'),
    case("I6", "train next to classes", tree("bus", "car", "train/a", "train/b"), 3, WAYS, 'train: "train/*"}'),
    case("I6", "splits in some classes", tree("a/train", "a/test", "b"), 3, WAYS, 'train: "*/train", test: "*/test"'),
    case("I6", "splits next to photos of a class", tree("a", "a/test", "b", "b/test"), 3, WAYS, 'test: "*/test"}'),
    case(
        "I6", "flat test next to classes", tree("a", "b", "test"), 3, WAYS, "test 3 images without labels", '"test/*"}'
    ),
    case(
        "I6",
        "folds",
        tree("1/train/a", "1/train/b", "1/val/a", "2/train/a", "2/train/b", "2/val/a"),
        3,
        WAYS,
        "1/val/*",
    ),
    case("I6", "train and training_set", tree("train/a", "training_set/a"), 3, "which name the same split; keep one"),
    case("I6", "splits without classes", tree("training_set", "test_set"), 3, "no class folder", "dataset.train='*'"),
    case("I6", "pattern of no folder", tree("a", "b", more=", train: tarin"), 3, "has no 'tarin'; check dataset.train"),
    case(
        "I6", "pattern misspelt", tree("x/a", "x/b", more=", train: x, test: xx"), 3, "has no 'xx'", "did you mean 'x'?"
    ),
    case("I6", "two stars", tree("a", "b", more=', train: "*/*"'), 2, "dataset.train: use '*' once, between"),
    case("Y7", "photos of a user who is not", data("use: folder, root: ~nobody-has-this-name/p"), 2, HOME, "full path"),
    case("Y7", "recipe of a user who is not", lambda _: ["check", "~nobody-has-this-name/r.yaml"], 2, HOME, "full pa"),
    case("Y7", "model of a user who is not", use("eval", "~nobody-has-this-name/m", "photos"), 2, HOME, "full path"),
    case(
        "Y7", "data of a user who is not", use("eval", "m", "~nobody-has-this-name/p"), 2, HOME, "write the full path"
    ),
    case(
        "Y7", "run of a user who is not", lambda _: ["run", "--resume", "~nobody-has-this-name/r"], 2, HOME, "full pa"
    ),
    case("I1", "photo of a camera to label", alone(photo("x.DNG")), 3, "1 of 1 photos", "x.DNG' is an image in an uns"),
    case(
        "I1",
        "photo without an ending to label",
        alone(photo("x")),
        3,
        "1 of 1 photos",
        "does not have the ending of one",
    ),
    case("I1", "album to label that is gone", alone(link("x")), 3, "1 of 1 photos", "x' is a broken link"),
    case("I1", "nothing but junk to label", alone(photo("._x.jpg")), 2, "no photos in photos; photos end with .jpg"),
]
