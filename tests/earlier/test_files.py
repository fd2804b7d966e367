"""A run folder, a model folder, a checkpoint, cache entries and a pack that version 0.1.0 wrote before modules moved.

``files.zip`` holds twenty-four drawn photos, a run of the tiny network on them that was stopped after two steps, a
finished run that only fitted its head, the features of both, and the photos as a pack.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from finetune.data.pack.packed import read_pack
from finetune.features.store import SEAL, Table
from finetune.machine import environment
from finetune.model import modelfolder
from finetune.training import saving
from tests.features import tiny

pytestmark = pytest.mark.once
STOPPED = {"runner": {"mode": "pynative"}, "callbacks": [{"use": "checkpoint"}]}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """Return the folder that an earlier version wrote, in another place than it was written."""
    with zipfile.ZipFile(Path(__file__).with_name("files.zip")) as archive:
        archive.extractall(tmp_path / "earlier")
    return tmp_path / "earlier"


def test_a_run_is_resumed(earlier: Path, tmp_path: Path) -> None:
    complete = tiny.run(tiny.recipe(earlier / "photos", tmp_path / "complete", **STOPPED))
    resumed = tiny.run(
        tiny.recipe(earlier / "photos", earlier / "runs", **STOPPED), resume=earlier / "runs" / "small-001"
    )
    assert resumed.told("resumed after step 2")
    assert resumed.run.step == complete.run.step
    assert [line["epoch"] for line in resumed.lines] == [1, 2]
    began = json.loads((earlier / "runs" / "small-001" / "environment.json").read_text())
    here = environment.describe_environment()
    if all(began[name] == here[name] for name in ("cpu", "isa_flags", "packages", "python")):
        assert resumed.weights == complete.weights  # to the bit, where nothing else differs


def test_a_checkpoint_is_read(earlier: Path) -> None:
    saved, broken = saving.load_newest(earlier / "runs" / "small-001" / "checkpoints")
    assert not broken
    assert (saved.state["step"], saved.state["done"], saved.state["epoch"]) == (2, 2, 1)
    assert {*saved.select("network")} == {parameter.name for parameter in tiny.network().get_parameters()}


def test_a_finished_run_is_recognised(earlier: Path) -> None:
    recipe = tiny.recipe(
        earlier / "photos",
        earlier / "fitted",
        runner={"mode": "pynative"},
        head={"start": "fitted"},
        train={"epochs": 0},
    )
    again = tiny.run(recipe, resume=earlier / "fitted" / "small-001")
    assert again.run.result is not None
    assert again.run.result["validation"]["images"] == 24


@pytest.mark.parametrize("folder", ["", "model"])
def test_a_model_predicts(earlier: Path, folder: str) -> None:
    model = modelfolder.open_model(earlier / "fitted" / "small-001" / folder, tiny.catalogue(), say=lambda text: None)
    photos = sorted((earlier / "photos").glob("*/*.jpg"))
    found = model.predict(photos)
    assert [each.path for each in found] == photos
    assert {each.label for each in found} <= {"blue", "green", "red"}


def test_cache_entries_are_sound(earlier: Path) -> None:
    entries = sorted((earlier / "cache" / "features").iterdir())
    assert len(entries) == 8
    for entry in entries:
        about = json.loads((entry / "entry.json").read_text())
        width = int(np.prod(about["shape"]))
        rows = ((entry / "00000.f16").stat().st_size - SEAL) // (2 * width)
        table = Table(folder=entry, count=rows, shape=tuple(about["shape"]), chunk=4)
        assert table.list_missing() == []
        assert np.isfinite(table.read().take(np.arange(rows))).all()


def test_a_pack_is_read(earlier: Path) -> None:
    samples = read_pack(earlier / "pack", "train")
    assert samples is not None
    photos = sorted((earlier / "photos").glob("*/*.jpg"))
    assert len(samples.images) == len(photos) == 24
    assert sorted(image.data for image in samples.images) == sorted(photo.read_bytes() for photo in photos)
