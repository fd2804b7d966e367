"""Groups of images: by a pattern, by the dataset, whole on one side of a split and in one fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError

from finetune.catalogue import Catalogue
from finetune.components import Dataset, Options, Samples
from finetune.data.loading import load
from finetune.errors import DataError
from finetune.fitting.folds import assign_folds, join_groups
from finetune.plugins import Plugins
from finetune.recipe.models import DatasetSection
from finetune_plugins import csv as tables
from finetune_plugins.folder import Folder, build
from tests.drawn import folder

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.components import Split

PATIENTS = [f"p{number // 4}" for number in range(40)]

CATALOGUE = Catalogue(Plugins())


def arrays(groups: list[Any] | None) -> Dataset:
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (20, 20, 3), np.uint8) for _ in range(40)]

    def build(options: Options, split: Split) -> Samples | None:
        if split != "train":
            return None
        return Samples(images=images, labels=[i % 2 for i in range(40)], classes=("a", "b"), groups=groups)

    return Dataset(name="arrays", options=Options, build=build)


def loaded(dataset: Dataset, **section: Any) -> Any:
    return load(CATALOGUE.choose(dataset, Options()), DatasetSection(use="arrays", **section), seed=3, workers=1)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_a_group_is_on_one_side_of_the_split(share: float) -> None:
    data = loaded(arrays(PATIENTS), split=share)
    sides = [{*data.train.groups}, {*data.valid.groups}]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {*PATIENTS}
    assert len(data.train) + len(data.valid) == 40


def test_an_image_without_a_group_is_on_its_own() -> None:
    data = loaded(arrays([None] * 38 + ["x", "x"]), split=0.5)
    assert 10 < len(data.valid) < 30
    together = [part for part in (data.train, data.valid) if "x" in {*part.groups}]
    assert [list(part.groups).count("x") for part in together] == [2]


def test_groups_by_a_pattern_in_the_path(tmp_path: Path) -> None:
    folder(tmp_path / "photos", each=6)
    dataset = Dataset(name="folder", options=Folder, build=build)
    section = DatasetSection(use="folder", groups=r"^(\w+)/\d+\.jpg$", split=0.4)
    data = load(CATALOGUE.choose(dataset, Folder(root=tmp_path / "photos")), section, seed=1, workers=1)
    assert {*data.train.groups} | {*data.valid.groups} == {"blue", "green", "red"}
    assert not {*data.train.groups} & {*data.valid.groups}


def test_a_group_in_two_splits_is_a_leak() -> None:
    def build(options: Options, split: Split) -> Samples | None:
        if split == "test":
            return None
        rng = np.random.default_rng(1 if split == "train" else 2)
        images = [rng.integers(0, 256, (20, 20, 3), np.uint8) for _ in range(4)]
        return Samples(images=images, labels=[0, 1, 0, 1], classes=("a", "b"), groups=["p1", "p1", split, split])

    data = loaded(Dataset(name="arrays", options=Options, build=build))
    texts = [each["text"] for each in data.report["findings"] if each["subject"] == "groups"]
    assert texts == [
        "2 groups, and 0 images without a group",
        "1 are also in 'train': p1; the metrics look better than they are",
    ]


@pytest.mark.parametrize(
    ("pattern", "said"), [("(", "not a valid regular expression"), ("a", "has 0 parts"), ("(a)(b)", "has 2")]
)
def test_patterns_that_name_no_group(pattern: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DatasetSection(use="folder", groups=pattern)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (["x"] * 40, "all images are in 'x', so none can be held back; check dataset.groups"),
        ([None] * 40, "no image is in a group; check dataset.groups"),
    ],
)
def test_groups_that_nothing_can_be_split_by(groups: list[str | None], said: str) -> None:
    section = DatasetSection(use="arrays")
    data = load(CATALOGUE.choose(arrays(groups), Options()), section, seed=3, workers=1, folds=lambda images: 5)
    findings = data.report["findings"]
    assert said in [each["text"] for each in findings if each["severity"] == "warning"]


def test_groups_of_another_number_than_images() -> None:
    with pytest.raises(DataError, match="40 images but 3 groups"):
        loaded(arrays(["a", "b", "c"]))


def test_groups_are_in_one_fold() -> None:
    labels = np.array([i % 2 for i in range(40)])
    groups = join_groups(np.arange(40), PATIENTS)
    folds = assign_folds(labels, groups, 5, seed=1)
    assert all(len({*folds[np.array(PATIENTS) == name]}) == 1 for name in PATIENTS)
    assert {*folds.tolist()} == {*range(5)}


def test_a_column_of_a_table_names_the_groups(tmp_path: Path) -> None:
    photos = sorted(folder(tmp_path / "photos", each=2).glob("*/*"))[:4]
    lines = [f"{path},{path.parent.name},{group}" for path, group in zip(photos, ["x", "x", "", "y"], strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,patient", *lines]))
    samples = tables.build(tables.Table(file=tmp_path / "t.csv", group_column="patient"), "train")
    assert samples is not None
    assert samples.groups == ["x", "x", None, "y"]
