"""Moved projects: the same images under another root resume to the same bits, and keep their features."""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from finetune.data import splitfile
from finetune.errors import DataError, Interrupted, UsageError
from finetune.recipe.moved import follow_move, load_run_recipe
from tests.drawn import folder
from tests.features import tiny
from tests.features.tiny import At, run

if TYPE_CHECKING:
    from tests.features.tiny import Made

recipe = partial(tiny.recipe, runner={"mode": "pynative"}, callbacks=[{"use": "checkpoint", "every": "1 step"}])
pytestmark = [pytest.mark.usefixtures("graph_mode"), pytest.mark.once]


def stopped(top: Path, **sections: Any) -> Path:
    """Return the folder of a run in a project, which a signal ended in the middle of its second epoch."""
    step = At(lambda: os.kill(os.getpid(), signal.SIGTERM), step=4)
    with pytest.raises(Interrupted):
        run(recipe(top / "photos", top / "runs", **sections), watchers=[step])
    return top / "runs" / "small-001"


def project(top: Path) -> Path:
    """Return a folder with photos: 24 of them train, in steps of 8."""
    folder(top / "photos", each=10, size=20)
    return top


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = project(tmp_path_factory.mktemp("plain"))
    return run(recipe(top / "photos", top / "runs"))


@pytest.mark.parametrize("how", ["moved", "copied", "photos alone"])
def test_a_moved_project_resumes_to_the_same_bits(how: str, plain: Made, tmp_path: Path) -> None:
    top, new = project(tmp_path / "old"), tmp_path / "new" / "place"
    found = stopped(top)
    if how == "photos alone":
        shutil.move(top / "photos", new / "photos")
        what, where = recipe(new / "photos", top / "runs"), found
    else:
        shutil.copytree(top, new)
        if how == "moved":
            shutil.rmtree(top)
        what, where = recipe(new / "photos", new / "runs"), new / "runs" / "small-001"
    made = run(what, resume=where)
    assert made.weights == plain.weights
    assert made.lines == plain.lines
    assert made.told("resumed after step 4: 1 of the 3 steps of epoch 2")
    assert not made.told("changed")
    assert not made.told("restarting")
    assert made.features["computed"] == 0
    record = splitfile.read_split(where)
    assert record is not None
    assert all(Path(row.path).is_relative_to(new) for row in record.rows)
    assert run(what, resume=where).told("nothing to do")


def test_a_moved_run_finds_its_images_without_a_recipe(plain: Made, tmp_path: Path) -> None:
    top = project(tmp_path / "old")
    stopped(top)
    moved = tmp_path / "new"
    top.rename(moved)
    where = moved / "runs" / "small-001"
    values = load_run_recipe(where)
    assert isinstance(values, dict)
    assert values["dataset"]["root"] == str(moved / "photos")
    assert values["output"] == str(moved / "runs")
    made = run(values, resume=where)
    assert made.weights == plain.weights


def test_a_run_whose_old_images_are_still_there_keeps_them(tmp_path: Path) -> None:
    top = project(tmp_path / "old")
    found = stopped(top)
    shutil.copytree(top, tmp_path / "new")
    copied = tmp_path / "new" / "runs" / "small-001"
    assert load_run_recipe(copied) == copied / "recipe.yaml"
    assert load_run_recipe(found) == found / "recipe.yaml"
    assert follow_move({"root": "relative", "n": 3, "deep": [{"a": None}]}, copied) == {
        "root": "relative",
        "n": 3,
        "deep": [{"a": None}],
    }


def test_other_images_under_another_root_are_still_refused(tmp_path: Path) -> None:
    top = project(tmp_path / "old")
    found = stopped(top)
    other = folder(tmp_path / "other", each=10, size=20, seed=1)
    with pytest.raises(DataError, match=r"the images for 'train' and 'valid' changed .*24 added, 24 removed|30 added"):
        run(recipe(other, top / "runs"), resume=found)


def test_weights_count_by_their_content(tmp_path: Path) -> None:
    top = project(tmp_path / "top")
    first = run(recipe(top / "photos", tmp_path / "first", train={"epochs": 1})).run.folder
    weights = top / "start.safetensors"
    shutil.copy(first / "model" / "weights.safetensors", weights)
    found = stopped(top, backbone={"weights": str(weights)})
    renamed = weights.rename(top / "renamed.safetensors")
    made = run(recipe(top / "photos", top / "runs", backbone={"weights": str(renamed)}), resume=found)
    assert not made.told("changed")
    what = recipe(top / "photos", top / "runs", backbone={"weights": str(first)})
    assert run(what, resume=found).told("nothing to do")
    second = run(recipe(top / "photos", tmp_path / "second", seed=3, train={"epochs": 1})).run.folder
    shutil.copy(second / "model" / "weights.safetensors", renamed)
    with pytest.raises(UsageError, match=r"backbone.weights: |content of .*renamed.safetensors: sha256 "):
        run(recipe(top / "photos", top / "runs", backbone={"weights": str(renamed)}), resume=found)
