"""Runs that fit the head and then train: what they write, and that they resume to the same weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from finetune.errors import Interrupted
from tests.drawn import folder
from tests.features.tiny import At, terminate
from tests.training import nano

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.usefixtures("graph_mode"), pytest.mark.once]

SAID: dict[str, Any] = {
    "runner": {"mode": "pynative"},
    "freeze": {"use": "gradual", "schedule": {1: "head", 2: "last 1"}},
    "train": {"epochs": 2, "batch_size": 8, "ema": 0.9},
    "optimizer": {"use": "adamw", "lr": 1e-4},
    "callbacks": [{"use": "checkpoint"}, {"use": "tensorboard"}],
}


def killed(*arguments: object) -> None:
    """End a run as if its process were killed."""
    raise SystemExit


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"), each=10)


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> nano.Made:
    return nano.run(nano.recipe(photos, tmp_path_factory.mktemp("plain"), **SAID))


def test_its_history_begins_with_the_fitted_head(plain: nano.Made) -> None:
    lines = [json.loads(line) for line in (plain.run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["phase"]) for line in lines] == [(0, 0), (1, 1), (2, 2)]
    assert [line["trainable"] for line in lines] == [["head"], ["head"], ["layer4", "head"]]
    assert all({"val_loss", "val_accuracy"} < {*line} for line in lines)
    assert (plain.result["epochs"], plain.result["planned_epochs"]) == (2, 2)
    assert plain.result["validation"]["method"] == "hash"
    assert plain.result["validation"]["images"] == 6
    assert plain.run.images == {"train": 24, "valid": 6}
    assert not (plain.run.folder / "out_of_fold.csv").exists()


def test_training_begins_where_the_fit_ended(plain: nano.Made) -> None:
    losses = [line["train_loss"] for line in plain.run.history]
    assert losses[0] < 0.1
    assert losses[1] < 10 * losses[0]


@pytest.mark.parametrize("at", [At(terminate, epoch=0), At(terminate, step=2), At(terminate, step=5)])
def test_stopped_and_resumed_it_ends_in_the_same_weights(
    at: At, plain: nano.Made, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        nano.run(nano.recipe(photos, tmp_path, **SAID), watchers=[at])
    (found,) = tmp_path.iterdir()
    made = nano.run(found / "recipe.yaml", resume=found)
    assert made.weights == plain.weights
    assert [line["epoch"] for line in made.run.history] == [0, 1, 2]
    assert made.result["fitted"] == plain.result["fitted"]
    assert not [line for line in made.said if line.startswith("fitting the head")]


def test_killed_before_the_head_is_saved_it_is_fitted_again(
    plain: nano.Made, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.training.training_run.TrainingRun.save_epoch", killed)
    with pytest.raises(SystemExit):
        nano.run(nano.recipe(photos, tmp_path, **SAID))
    monkeypatch.undo()
    (found,) = tmp_path.iterdir()
    made = nano.run(found / "recipe.yaml", resume=found)
    assert "no checkpoint yet; restarting the run in its folder" in made.said
    assert made.weights == plain.weights


def test_killed_before_its_result_a_fitted_run_resumes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that only fits its head ends in epoch 0, whose checkpoint is all that is left of it."""
    what = nano.recipe(photos, tmp_path, callbacks=[{"use": "checkpoint"}])
    plain = nano.run(what)

    monkeypatch.setattr("finetune.training.engine.finishing.finish", killed)
    with pytest.raises(SystemExit):
        nano.run(what)
    monkeypatch.undo()
    found = tmp_path / "small-002"
    assert not (found / "result.json").exists()
    made = nano.run(what, resume=found)
    assert made.weights == plain.weights
    assert made.result["validation"] == plain.result["validation"]
    assert made.result["fitted"] == plain.result["fitted"]
    assert (found / "out_of_fold.csv").read_bytes() == (plain.run.folder / "out_of_fold.csv").read_bytes()
