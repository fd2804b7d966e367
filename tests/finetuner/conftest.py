"""A fitted Finetuner and drawn photos in every form that fit takes, shared by all tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from finetune import Dataset, Finetuner, Options, Samples
from tests.drawn import folder
from tests.finetuner.small import NANO

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.components import Split


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def paths(photos: Path) -> list[Path]:
    return sorted(photos.rglob("*.jpg"))


@pytest.fixture(scope="session")
def table(photos: Path, paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CSV file that lists all photos."""
    file = tmp_path_factory.mktemp("table") / "photos.csv"
    file.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
    return file


@pytest.fixture(scope="session")
def recipe(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recipe file for all photos."""
    file = tmp_path_factory.mktemp("recipe") / "small.yaml"
    file.write_text(
        f"seed: 5\ndataset: {{use: folder, root: {photos}, split: 0.5}}\n"
        "backbone: {use: resnext_nano, weights: none}\nimage: {size: 32, resize: 36}\n"
        "freeze: {use: gradual, schedule: {1: head}}\n"
        "loss: {label_smoothing: 0.1}\ntrain: {epochs: 9, batch_size: 8}\n"
    )
    return file


@pytest.fixture(scope="session")
def component(paths: list[Path]) -> Dataset:
    """Return a dataset of a user's own, with options."""

    class Some(Options):
        each: int = 12

    def build(options: Some, split: Split) -> Samples | None:
        kept = [path for path in paths if int(path.stem) < options.each]
        classes = ("blue", "green", "red")
        labels = [classes.index(path.parent.name) for path in kept]
        return Samples(images=kept, labels=labels, classes=classes) if split == "train" else None

    return Dataset(name="some", options=Some, build=build)


@pytest.fixture(scope="session")
def fitted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Finetuner:
    ft = Finetuner(**NANO, freeze="none", output=tmp_path_factory.mktemp("runs"))
    ft.fit(photos, epochs=2)
    return ft


@pytest.fixture(scope="session")
def loaded(fitted: Finetuner) -> Finetuner:
    assert fitted.run is not None
    return Finetuner.load(fitted.run.folder, progress=False, train={"batch_size": 8})
