"""Runs of a version that left less open: resumed, they train on as they began, whatever the defaults are now."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from finetune.errors import Interrupted, UsageError
from finetune.training import saving
from tests.drawn import folder
from tests.features.tiny import At, terminate
from tests.training import nano

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("graph_mode"), pytest.mark.once]

# What an earlier version did where a recipe said nothing.
EARLIER: dict[str, Any] = {
    "head": {"start": "random"},
    "train": {"epochs": 3, "batch_size": 8},
    "optimizer": {"use": "adamw", "lr": 1e-2},
    "schedule": {"phase_warmup": 0.0},
    "loss": {"class_weights": "none"},
    "evaluate": {"metric": "accuracy"},
    "validate": {"folds": "off"},
}
SAID = {"runner": {"mode": "pynative"}, "freeze": {"use": "head"}}
LACKING = {"head": "start", "schedule": "phase_warmup"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"), each=10)


def forget(section: dict[str, Any]) -> None:
    """Take out of a recipe what earlier versions did not write."""
    for name, key in LACKING.items():
        del section[name][key]
    del section["validate"]


@pytest.fixture
def older(photos: Path, tmp_path: Path) -> Path:
    """Return the folder of an earlier version's run that was stopped in its second epoch."""
    with pytest.raises(Interrupted):
        nano.run(nano.recipe(photos, tmp_path / "older", **SAID, **EARLIER), watchers=[At(terminate, step=4)])
    (found,) = (tmp_path / "older").iterdir()
    return made_older(found)


def made_older(found: Path) -> Path:
    """Take out of a run's folder what earlier versions did not write."""
    text = (found / "recipe.yaml").read_text()
    text = re.sub(r"^  (start|phase_warmup): .*\n|^validate:\n  folds: off\n", "", text, flags=re.MULTILINE)
    assert not {"start", "phase_warmup", "validate"} & {*re.findall(r"\w+", text)}
    (found / "recipe.yaml").write_text(text)
    for path in saving.list_checkpoints(found / "checkpoints"):
        saved = saving.load_checkpoint(path)
        forget(saved.state["recipe"])
        saving.save_checkpoint(path.parent, saved.arrays, saved.state, best=False, keep=9)
    return found


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> nano.Made:
    """Return the run that nothing stopped."""
    return nano.run(nano.recipe(photos, tmp_path_factory.mktemp("plain"), **SAID, **EARLIER))


def test_by_the_recipe_in_its_folder(older: Path, plain: nano.Made) -> None:
    made = nano.run(older / "recipe.yaml", resume=older)
    assert made.weights == plain.weights
    assert [line["epoch"] for line in made.run.history] == [1, 2, 3]
    assert not [line for line in made.said if "chose" in line or "fitting" in line]
    said = yaml.safe_load((older / "recipe.yaml").read_text())
    assert said["train"]["epochs"] == 3


def test_by_the_recipe_that_leaves_the_same_open(older: Path, plain: nano.Made, photos: Path) -> None:
    made = nano.run(nano.recipe(photos, older.parent, **SAID), resume=older)
    assert made.weights == plain.weights
    assert made.run.images == {"train": 24, "valid": 6}


def test_what_a_recipe_says_now_is_a_change(older: Path, photos: Path) -> None:
    with pytest.raises(UsageError, match=r"head\.start: 'random' → 'fitted'"):
        nano.run(nano.recipe(photos, older.parent, **SAID, head={"use": "linear", "start": "fitted"}), resume=older)


def test_a_finished_one_is_finished(plain: nano.Made, photos: Path, tmp_path: Path) -> None:
    found = made_older(shutil.copytree(plain.run.folder, tmp_path / "small-001"))
    made = nano.run(nano.recipe(photos, tmp_path, **SAID), resume=found)
    assert made.said == [f"nothing to do: {found} is finished"]
