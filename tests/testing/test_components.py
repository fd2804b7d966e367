"""Every component that comes along, and every one of the examples, keeps the contract."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.cli import main
from finetune.testing import (
    check_audit,
    check_augmentation,
    check_backbone,
    check_callback,
    check_dataset,
    check_freezer,
    draw_photos,
)
from finetune.version import DISTRIBUTION
from tests.cli.calling import environment
from tests.clocks import LONGEST

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.components import Component

pytestmark = pytest.mark.once

CHECKS: dict[str, Any] = {
    "backbone": check_backbone,
    "dataset": check_dataset,
    "augmentation": check_augmentation,
    "freezer": check_freezer,
    "callback": check_callback,
    "audit": check_audit,
}
BUILT_IN = [each for origin, each in Catalogue(plugins.load_plugins()) if origin.distribution == DISTRIBUTION]
# Options for those that need some, and others that are worth a check of their own.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "folder": [{"root": "photos"}, {"root": "splits"}],
    "csv": [{"file": "table.csv", "root": "photos"}],
    "flowers102": [{"root": "splits"}],
    "mindrecord": [{"root": "packed"}],
    "shapes": [{"train": 20, "valid": 10, "test": 10}],
    "albumentations": [{"preset": each} for each in ("none", "light", "standard", "strong")],
    "stages": [{"train": ["layer[34]"]}, {"frozen": ["stem"]}],
    "gradual": [{}, {"schedule": {1: "head", 3: "layer4", 9: "all"}}],
    "checkpoint": [{"every": "1 step", "keep": 1}],
    "early_stopping": [{"patience": 1}],
}
GENERAL = {"networks"}  # named stages are what `stages` and `gradual` are for; other networks refuse them


def cases() -> list[Any]:
    """Return every component with options, the largest among the slow ones."""
    found = []
    for component in BUILT_IN:
        for options in OPTIONS.get(component.name, [{}]):
            marks = [pytest.mark.slow] if component.name == "resnext50" else []
            said = " ".join(f"{key}={value}" for key, value in options.items())
            found.append(pytest.param(component, options, id=f"{component.name} {said}".strip(), marks=marks))
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same photos in every form that a dataset reads."""
    top = tmp_path_factory.mktemp("forms")
    photos = draw_photos(top / "photos")
    files = sorted(photos.rglob("*.jpg"))
    with open(top / "table.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows([path.relative_to(photos), path.parent.name] for path in files)
    with ZipFile(top / "photos.zip", "w") as archive:
        for path in files:
            archive.write(path, path.relative_to(photos))
    for split in ("train", "valid", "test"):
        for number, name in enumerate(("blue", "green", "red"), 1):
            shutil.copytree(photos / name, top / "splits" / split / str(number))
    assert main(["pack", str(photos), str(top / "packed")]) == 0
    return top


@pytest.mark.parametrize(("component", "options"), cases())
def test_what_comes_along(
    component: Component, options: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    CHECKS[component.kind](component, options)


def test_photos_from_a_zip_file(repo: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repo / "examples" / "finetune-zip"))
    import finetune_zip

    for dataset in finetune_zip.finetune_datasets():
        check_dataset(dataset, {"file": place / "photos.zip"})


def test_squeezenet(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repo / "examples" / "finetune-squeezenet"))
    import finetune_squeezenet

    for backbone in finetune_squeezenet.finetune_backbones():
        check_backbone(backbone)


def test_drawn_photos_are_the_same_everywhere(tmp_path: Path) -> None:
    first, second = (draw_photos(tmp_path / name, each=2, size=30) for name in ("first", "second"))
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*.jpg"))
    assert names == [f"{name}/{name}_{number}.jpg" for name in ("blue", "green", "red") for number in range(2)]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


# As a plugin of pytest

OWN_TESTS = """\
import json, os, sys
from pathlib import Path

SEEN = [name for name in ("finetune", "mindspore", "numpy", "PIL") if name in sys.modules]
STATE = {name: os.environ.get(name) for name in ("GLOG_v", "NO_ALBUMENTATIONS_UPDATE")}


def test_nothing_was_imported():
    Path("seen.json").write_text(json.dumps([SEEN, STATE]))


def test_contract(finetune_photos):
    from finetune.testing import check_dataset

    check_dataset("folder", {"root": finetune_photos})
    assert "mindspore" not in sys.modules


def test_broken(finetune_photos):
    from finetune.testing import check_dataset

    check_dataset("folder", {"root": finetune_photos / "red"})
"""


def test_pytest_has_photos_and_imports_nothing_before_they_are_wanted(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(OWN_TESTS)
    env = {
        name: value for name, value in environment(repo).items() if name not in ("GLOG_v", "NO_ALBUMENTATIONS_UPDATE")
    }
    options = ["-p", "finetune_pytest", "-p", "no:cacheprovider", "-q", "-W", "error", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_mine.py"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert json.loads((tmp_path / "seen.json").read_text()) == [[], {"GLOG_v": None, "NO_ALBUMENTATIONS_UPDATE": None}]
    assert "ContractError: dataset 'folder' of plugin 'folder' (mindspore-finetune " in done.stdout
    assert "finetune/testing/contract.py" not in done.stdout  # the traceback ends where the test calls the check
