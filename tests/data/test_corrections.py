"""Corrections of a dataset: excluded images and changed labels, for any dataset, before the split."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import Finetuner
from finetune.catalogue import Catalogue
from finetune.cli import main
from finetune.components import Dataset, Encoded, NoOptions, Samples, Split
from finetune.data import loading
from finetune.errors import DataError
from finetune.plugins import Plugins, load_plugins
from finetune.recipe import plan as plans
from finetune.recipe.models import DatasetSection
from finetune.training.records import load_data
from tests.drawn import folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEADER = "path,action,label\n"


def ignore(split: str, done: int, total: int) -> None:
    """Report no progress."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of drawn photos of three classes."""
    return folder(tmp_path / "photos", each=5)


@pytest.fixture
def load(photos: Path, tmp_path: Path) -> Callable[[str], loading.Data]:
    """Load the photos with a file of corrections."""

    def load(text: str) -> loading.Data:
        (tmp_path / "corrections.csv").write_text(text, encoding="utf-8")
        section = {"use": "folder", "root": str(photos), "corrections": str(tmp_path / "corrections.csv")}
        plan = plans.load_plan({"dataset": section}, [], Catalogue(load_plugins()))
        return load_data(plan, 2, ignore)

    return load


def labels(data: loading.Data) -> dict[str, str]:
    """Return the class of every image by its name."""
    parts = [part for part in (data.train, data.valid, data.test) if part is not None]
    return {part.name_of(i): data.classes[part.labels[i]] for part in parts for i in range(len(part))}


def test_images_are_excluded_and_labels_changed(load: Any, photos: Path) -> None:
    gone, wrong = photos / "red" / "00.jpg", photos / "red" / "01.jpg"
    before = {str(path): path.parent.name for path in photos.rglob("*.jpg")}
    data = load(f"{HEADER}{gone},exclude,\n{wrong},relabel,blue\n")
    assert labels(data) == {path: label for path, label in before.items() if path != str(gone)} | {str(wrong): "blue"}
    about = data.report["corrections"]
    assert (about["excluded"], about["relabelled"], about["file"]) == (1, 1, str(photos.parent / "corrections.csv"))
    assert about["images"] == [
        {"split": "train", "path": str(gone), "from": "red", "to": None},
        {"split": "train", "path": str(wrong), "from": "red", "to": "blue"},
    ]
    texts = [finding["text"] for finding in data.report["findings"]]
    assert "excludes 1 image and changes the label of 1" in texts
    assert gone.exists()
    json.dumps(data.report)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_paths_start_at_the_folder_of_the_file(load: Any, photos: Path, separator: str) -> None:
    text = "\ufeff" + f"label,path,action\r\nblue,{photos.name}/red/00.jpg,relabel\r\n\r\n"
    assert labels(load(text.replace(",", separator)))[str(photos / "red" / "00.jpg")] == "blue"


def test_a_file_without_rows_changes_nothing(load: Any) -> None:
    data = load(HEADER)
    assert len(labels(data)) == 15
    assert data.report["corrections"]["images"] == []


def test_an_image_that_cannot_be_read_can_be_excluded(load: Any, photos: Path) -> None:
    (photos / "red" / "00.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        load(HEADER)
    assert len(labels(load(f"{HEADER}{photos}/red/00.jpg,exclude,\n"))) == 14


def test_a_path_that_is_not_in_the_dataset(load: Any, photos: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(f"{HEADER}elsewhere/green/04.jpeg,exclude,\n{photos}/red/00.jpg,exclude,\nphotos/red/17.jpg,exclude,\n")
    first, *lines = str(caught.value).splitlines()
    assert first.endswith(
        "corrections.csv: 2 of 3 paths are not images of the dataset; "
        "remove these rows, or use the file with the photos that it was made for"
    )
    assert lines[0].startswith("  line 2: 'elsewhere/green/04.jpeg'")
    assert lines[1].startswith("  line 4: 'photos/red/17.jpg' does not exist; did you mean '")


def test_a_moved_path_is_found_by_its_name(load: Any, photos: Path) -> None:
    (photos / "red" / "only.jpg").write_bytes((photos / "red" / "00.jpg").read_bytes() + b"x")
    with pytest.raises(DataError, match=rf"'old/only.jpg' does not exist; did you mean '{photos}/red/only.jpg'\?"):
        load(f"{HEADER}old/only.jpg,exclude,\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty; its header must be 'path,action,label'"),
        ("path,action\n", "no column 'label' in 'path,action'"),
        ("path,action,label,why\n", "unknown or duplicate columns in 'path,action,label,why'"),
        ("path,action,label,label\n", "unknown or duplicate columns"),
        (HEADER + "a,drop,\n", "line 2: 'drop' is not an action; known: exclude, relabel"),
        (HEADER + "a,exlude,\n", "line 2: 'exlude' is not an action; did you mean 'exclude'?"),
        (HEADER + ",exclude,\n", "line 2: the path is empty"),
        (HEADER + "a,relabel,\n", "line 2: relabel needs a label"),
        (HEADER + "a,exclude,red\n", "line 2: exclude takes no label; leave the cell empty, or write relabel"),
        (HEADER + "a,exclude\n", "line 2: 2 cells, not 3"),
        (HEADER + "a,exclude,\na,relabel,red\n", "line 3: 'a' has a different action or label than in line 2"),
        (HEADER + "a,relabel,red\n./a,relabel,blue\n", "line 3: './a' has a different action or label than in line 2"),
        (HEADER + '"a,exclude,\n', "line 2: unexpected end of data"),
    ],
)
def test_what_is_wrong_with_a_file(load: Any, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load(text)
    assert message in str(caught.value)


def test_a_label_that_is_not_a_class(load: Any, photos: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: no class named 'bleu'; did you mean 'blue'\?"):
        load(f"{HEADER}{photos}/red/00.jpg,relabel,bleu\n")


def test_a_file_that_does_not_exist(load: Any, photos: Path) -> None:
    section = {"use": "folder", "root": str(photos), "corrections": "none.csv"}
    plan = plans.load_plan({"dataset": section}, [], Catalogue(load_plugins()))
    with pytest.raises(DataError, match=r"none\.csv: cannot be read: No such file or directory; check dataset"):
        load_data(plan, 2, ignore)


def test_repeated_rows_are_accepted(load: Any, photos: Path) -> None:
    row = f"{photos}/red/00.jpg,exclude,\n"
    assert len(labels(load(HEADER + row + row))) == 14


def test_images_without_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (6, 6, 3), np.uint8) for _ in range(8)]
    photo = folder(tmp_path / "x", each=1) / "red" / "00.jpg"

    def build(options: NoOptions, split: Split) -> Samples | None:
        if split == "train":
            return Samples(images=pixels, labels=[0, 1] * 4, classes=("a", "b"), groups=[str(n) for n in range(8)])
        if split == "test":
            encoded = [Encoded(name=f"page {n}", data=photo.read_bytes() + bytes([n])) for n in range(2)]
            return Samples(images=encoded, labels=[0, 1], classes=("a", "b"))
        return None

    file = tmp_path / "corrections.csv"
    file.write_text(f"{HEADER}dataset 'mine' train[3],exclude,\npage 1,relabel,a\n")
    chosen = Catalogue(Plugins()).choose(Dataset(name="mine", build=build), NoOptions())
    data = loading.load(chosen, DatasetSection(use="mine", corrections=file), 0, 0)
    assert "dataset 'mine' train[3]" not in labels(data)
    assert len(data.train) + len(data.valid) == 7  # type: ignore[arg-type]
    assert data.test is not None
    assert data.test.labels.tolist() == [0, 0]


def test_a_run_trains_and_is_evaluated_with_them(photos: Path, tmp_path: Path) -> None:
    shutil.move(photos / "blue" / "00.jpg", photos / "red" / "99.jpg")
    file = tmp_path / "corrections.csv"
    file.write_text(f"{HEADER}photos/red/99.jpg,relabel,blue\n")
    ft = Finetuner("resnext_nano", image={"size": 32, "resize": 36}, output=str(tmp_path / "runs"), progress=False)
    run = ft.fit({"use": "folder", "root": str(photos), "corrections": str(file)}, train={"epochs": 0})
    about = json.loads((run.folder / "data.json").read_text())
    assert (about["corrections"]["relabelled"], about["counts"]["train"]["blue"]) == (1, 5)
    assert str(file) in (run.folder / "recipe.yaml").read_text()
    assert ft.evaluate()["images"] == 15


def test_a_pack_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    photos = folder(tmp_path / "photos", each=4)
    (tmp_path / "c.csv").write_text(
        f"path,action,label\n{photos}/red/00.jpg,exclude,\n{photos}/green/01.jpg,relabel,blue\n"
    )
    (tmp_path / "r.yaml").write_text("dataset: {use: folder, root: photos, corrections: c.csv}\n")
    assert main(["pack", "r.yaml", "packed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["photos"]["train"] == 11
