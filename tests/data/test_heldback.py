"""Evaluation without the images that were trained on, and how many of other images were."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune.data import splitfile
from finetune.errors import DataError, Interrupted, UsageError
from finetune.model import modelfolder
from finetune.training import records
from finetune.training.records import read_split_method
from tests.drawn import folder
from tests.features import tiny
from tests.features.tiny import At, run, terminate

if TYPE_CHECKING:
    from collections.abc import Callable

    Evaluate = Callable[..., dict[str, Any]]

recipe = partial(tiny.recipe, runner={"mode": "pynative"}, train={"epochs": 1})
pytestmark = [pytest.mark.usefixtures("graph_mode"), pytest.mark.once]
KEYS = ("part", "images", "held_back", "trained_on")
SAID: list[str] = []


def evaluate(model: Path, *data: object) -> dict[str, Any]:
    """Return what an evaluation found; what it says is in ``SAID``."""
    SAID.clear()
    return modelfolder.open_model(model, tiny.catalogue(), say=SAID.append).evaluate(*data)


def known(report: dict[str, Any]) -> tuple[object, ...]:
    """Return part, number of images, whether they were held back, and how many were trained on."""
    return tuple(report[key] for key in KEYS)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 30 photos, and a run that trained on 24 of them."""
    top = tmp_path_factory.mktemp("project")
    folder(top / "photos", each=10, size=20)
    run(recipe(top / "photos", top / "runs"))
    return top


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    """Return a moved copy of the project, whose photos can be changed."""
    shutil.copytree(project, tmp_path / "copy")
    recipe_file = tmp_path / "copy" / "runs" / "small-001" / "recipe.yaml"
    elsewhere = str(project).replace("project", "gone")
    recipe_file.write_text(recipe_file.read_text().replace(str(project), elsewhere))
    about = recipe_file.parent / "model" / "model.json"
    about.write_text(about.read_text().replace(str(project), elsewhere))
    return tmp_path / "copy"


def test_the_images_that_the_run_held_back_are_evaluated(project: Path) -> None:
    found = project / "runs" / "small-001"
    report = evaluate(found)
    assert known(report) == ("valid", 6, True, 0)
    assert (report["skipped"], report["added"], report["deleted"], report["changed"]) == (24, 0, 0, 0)
    (project / "own.yaml").write_text(f"dataset: {{use: folder, root: '{project / 'photos'}'}}\n")
    for data in (project / "photos", project / "own.yaml", {"use": "folder", "root": str(project / "photos")}):
        assert evaluate(found, data) == report
    assert evaluate(found / "model") == report
    result = splitfile.read_split(found)
    assert result is not None
    assert sum(row.split == "valid" for row in result.rows) == 6


def test_a_table_of_the_same_photos_is_recognised_by_their_contents(project: Path, tmp_path: Path) -> None:
    files = sorted((project / "photos").rglob("*.jpg"))
    lines = [f"{file},{file.parent.name}" for file in files]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *lines]))
    assert known(evaluate(project / "runs" / "small-001", tmp_path / "t.csv")) == ("valid", 6, True, 0)
    (tmp_path / "half.csv").write_text("\n".join(["path,label", *lines[5:15]]))
    report = evaluate(project / "runs" / "small-001", tmp_path / "half.csv")
    assert known(report) == ("all", 10, False, 8)
    assert SAID == ["warning: the run was trained on 8 of the 10 images; expect worse metrics on new images"]


def test_arrays_and_new_photos(project: Path, tmp_path: Path) -> None:
    found = project / "runs" / "small-001"
    assert known(evaluate(found, folder(tmp_path / "new", each=2, size=20, seed=5))) == ("all", 6, False, 0)
    pixels = [np.full((20, 20, 3), value, np.uint8) for value in range(4)]
    assert known(evaluate(found, (pixels, ["red", "red", "blue", "green"])))[1:] == (4, False, 0)
    files = sorted((project / "photos" / "red").iterdir())
    assert known(evaluate(found, (files, ["red"] * 10)))[1:] == (10, False, 8)
    assert SAID


def test_photos_that_came_went_and_changed(copy: Path) -> None:
    found, red = copy / "runs" / "small-001", copy / "photos" / "red"
    assert known(evaluate(found)) == ("valid", 6, True, 0)
    shutil.copy(red / "00.jpg", red / "copy.jpg")
    shutil.copytree(red, copy / "photos" / "new class")
    (red / "new.jpg").write_bytes((red / "00.jpg").read_bytes() + b"\0")
    (red / "08.jpg").unlink()
    record = splitfile.read_split(found)
    assert record is not None
    rows = [splitfile.Row(str(copy / Path(r.path).relative_to(Path(r.path).parents[2])), r.split, r.label, r.hash)
            for r in record.rows]  # fmt: skip
    splitfile.write_split(found, rows)
    (red / "09.jpg").write_bytes((red / "09.jpg").read_bytes() + b"\0")
    report = evaluate(found)
    assert known(report) == ("valid", 4, True, 0)
    assert (report["skipped"], report["added"], report["deleted"], report["changed"]) == (25, 2, 1, 1)
    assert SAID == [
        "warning: 2 of the 6 held-back images are missing (1 deleted, 1 changed since the run); evaluating the rest"
    ]
    for name in ("green", "blue"):
        for number in ("08", "09"):
            (copy / "photos" / name / f"{number}.jpg").unlink()
    with pytest.raises(DataError, match=r"none of the 6 images that .* held back is left \(5 deleted, 1 changed\)"):
        evaluate(found)


def test_photos_that_are_gone(copy: Path) -> None:
    shutil.rmtree(copy / "photos")
    with pytest.raises(
        DataError, match=r"(?s)the images of .*small-001 cannot be read: .*name the data to evaluate on"
    ):
        evaluate(copy / "runs" / "small-001")


def test_a_run_of_an_earlier_version_and_a_copied_model(copy: Path, project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "runs" / "small-001" / "model", tmp_path / "alone")
    (copy / "runs" / "small-001" / "split.csv").unlink()
    for model in (tmp_path / "alone", copy / "runs" / "small-001"):
        assert known(evaluate(model, project / "photos")) == ("all", 30, False, None)
        with pytest.raises(UsageError, match=r"no split.csv says which images the run held back"):
            evaluate(model)


def test_a_test_split_comes_first(tmp_path: Path) -> None:
    folder(tmp_path / "photos" / "train", each=4, size=20)
    folder(tmp_path / "photos" / "valid", each=2, size=20, seed=1)
    run(recipe(tmp_path / "photos", tmp_path / "first"))
    assert known(evaluate(tmp_path / "first" / "small-001")) == ("valid", 6, True, 0)
    folder(tmp_path / "photos" / "test", each=1, size=20, seed=2)
    shutil.copy(tmp_path / "photos" / "train" / "red" / "00.jpg", tmp_path / "photos" / "test" / "red" / "leak.jpg")
    run(recipe(tmp_path / "photos", tmp_path / "second"))
    assert known(evaluate(tmp_path / "second" / "small-001")) == ("test", 4, True, 1)
    assert known(evaluate(tmp_path / "second" / "small-001", tmp_path / "photos" / "train"))[1:] == (12, False, 12)


def test_weights_of_a_run_that_trained_on_what_is_held_back_now(project: Path, tmp_path: Path) -> None:
    found = project / "runs" / "small-001"
    for weights in (found, found / "model" / "weights.safetensors"):
        output = tmp_path / weights.name
        same = run(recipe(project / "photos", output, backbone={"weights": str(weights)}))
        assert not same.told("the run of these weights")
    other = run(recipe(project / "photos", tmp_path / "other", backbone={"weights": str(found)}, seed=1))
    (line,) = other.told("warning: the run of these weights, ")
    record = splitfile.read_split(other.run.folder)
    before = splitfile.read_split(found)
    assert record is not None
    assert before is not None
    held = [row for row in record.rows if row.split == "valid"]
    overlap = sum(row.hash in before.trained for row in held)
    assert overlap > 0
    assert f"was trained on {overlap} of the {len(held)} images for 'valid'; expect worse metrics" in line


def test_images_trained_on_before_they_were_changed_count(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", each=6, size=20)
    found = run(recipe(photos, tmp_path / "runs")).run.folder
    ready = tiny.prepared(recipe(photos, tmp_path / "runs", seed=1))
    records.write_data(ready, found)
    record = splitfile.read_split(found)
    assert record is not None
    assert len(record.trained) > sum(row.split == "train" for row in record.rows)


def test_how_a_run_split_its_images(tmp_path: Path) -> None:
    assert read_split_method(None) == "hash"
    assert read_split_method(tmp_path) == "stratified"  # no record at all: of an earlier version
    for method, expected in (("stratified", "stratified"), ("hash", "hash"), ("dataset", "hash")):
        (tmp_path / "data.json").write_text(json.dumps({"split": {"method": method}}))
        assert read_split_method(tmp_path) == expected
    (tmp_path / "data.json").write_text("{")
    (tmp_path / "split.csv").touch()
    assert read_split_method(tmp_path) == "hash"


def test_a_run_of_an_earlier_version_resumes_with_its_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = folder(tmp_path / "photos", each=10, size=20)
    what = recipe(photos, tmp_path / "runs", train={"epochs": 2}, callbacks=[{"use": "checkpoint"}])
    monkeypatch.setattr(records, "read_split_method", lambda resume: "stratified")
    with pytest.raises(Interrupted):
        run(what, watchers=[At(terminate, step=2)])
    monkeypatch.undo()
    found = tmp_path / "runs" / "small-001"
    (found / "split.csv").unlink()
    before = json.loads((found / "data.json").read_text())
    assert before["split"]["method"] == "stratified"
    moved = photos.rename(tmp_path / "moved")
    what["dataset"] = {"use": "folder", "root": str(moved)}
    made = run(what, resume=found)
    assert not made.told("changed")
    after = json.loads((found / "data.json").read_text())
    assert after["fingerprint"] == before["fingerprint"]
    assert after["split"] == {"method": "stratified", "share": 0.2, "seed": 42}
    assert run(what, resume=found).told("nothing to do")
    assert known(evaluate(found)) == ("valid", 6, True, 0)


def test_changed_photos_get_no_stored_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune import Finetuner

    monkeypatch.chdir(tmp_path)
    photos = folder(tmp_path / "photos", each=12)
    ft = Finetuner("resnext_nano", image={"size": 32, "resize": 32}, device="cpu", progress=False)
    ft.fit(photos)
    assert ft.evaluate(photos)["part"] == "out of fold"
    (photos / "red").rename(photos / "other")
    (photos / "blue").rename(photos / "red")
    (photos / "other").rename(photos / "blue")
    swapped = ft.evaluate(photos)
    assert (swapped["part"], swapped["trained_on"]) == ("all", 36)
    assert swapped["accuracy"] < 0.6
