"""Runs that go on: with another recipe, from the second-newest checkpoint, and back from a loss that is no number."""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune.errors import DataError, DivergedError, Interrupted, UsageError
from finetune.training import records, saving
from tests.drawn import folder
from tests.features import tiny
from tests.features.tiny import At, Made, run

if TYPE_CHECKING:
    from finetune.training.trainer import Trainer

PHASES = {"use": "gradual", "schedule": {1: "head", 3: "neck", 4: "all"}}
recipe = partial(tiny.recipe, runner={"mode": "pynative"}, freeze=PHASES)


pytestmark = [pytest.mark.usefixtures("graph_mode"), pytest.mark.once]


def said(photos: Path, output: Path, **sections: Any) -> dict[str, Any]:
    """Return four epochs of three steps in three phases, with all that has state."""
    train = {"epochs": 4, "batch_size": 4, "accumulate": 2, "ema": 0.9, **sections.pop("train", {})}
    callbacks = [{"use": "checkpoint", "every": "1 step", "keep": 100}, {"use": "early_stopping", "patience": 9}]
    return recipe(photos, output, train=train, callbacks=callbacks, **sections)


def stopped(what: dict[str, Any], step: int) -> Path:
    """Return the folder of a run that a signal ended after a step."""
    with pytest.raises(Interrupted):
        run(what, watchers=[At(lambda: os.kill(os.getpid(), signal.SIGTERM), step=step)])
    (found,) = Path(what["output"]).iterdir()
    return found


def same(made: Made, plain: Made) -> bool:
    assert made.weights == plain.weights
    assert made.lines == plain.lines
    return True


@pytest.fixture(scope="module")
def eight(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was stopped after step 8, for tests to copy."""
    return stopped(said(photos, tmp_path_factory.mktemp("eight")), 8)


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return run(said(photos, tmp_path_factory.mktemp("plain")))


def test_steps_are_saved_and_each_goes_on_to_the_same_bits(photos: Path, plain: Made, tmp_path: Path) -> None:
    assert len(saving.list_checkpoints(plain.run.folder / "checkpoints")) == 4 * 3
    for step in (1, 6, 9):
        output = tmp_path / str(step)
        what = said(photos, output)
        assert same(run(what, resume=stopped(what, step)), plain)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_the_second_newest_serves_where_the_newest_is_broken(
    damage: str, photos: Path, plain: Made, eight: Path, tmp_path: Path
) -> None:
    what = said(photos, tmp_path)
    found = shutil.copytree(eight, tmp_path / "small-001")
    newest = saving.list_checkpoints(found / "checkpoints")[-1]
    data = bytearray(newest.read_bytes())
    data[-9] ^= 1
    newest.write_bytes({"truncated": data[:-9], "flipped": data, "empty": b""}[damage])
    made = run(what, resume=found)
    assert same(made, plain)
    (message,) = made.told("not used: ")
    assert newest.name in message
    assert made.told("resumed after step 7")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"optimizer": {"lr": 1e-2}}, "optimizer.lr: 0.003 → 0.01"),
        ({"train": {"batch_size": 8, "accumulate": 1}}, "train.batch_size: 4 → 8"),
        ({"train": {"epochs": 6}}, "train.epochs: 4 → 6"),
        ({"train": {"ema": None}}, "train.ema: 0.9 → None"),
        ({"optimizer": {"use": "sgd", "lr": 1e-2}}, "optimizer.use: 'adamw' → 'sgd'"),
        ({"augment": []}, "augment: "),
        ({"freeze": {"use": "head"}}, "freeze.use: 'gradual' → 'head'"),
    ],
    ids=["rate", "batch", "epochs", "average", "optimizer", "augmentation", "freezing"],
)
def test_another_recipe_is_refused_unless_allowed(
    changes: dict[str, Any], difference: str, photos: Path, eight: Path, tmp_path: Path
) -> None:
    found = shutil.copytree(eight, tmp_path / "small-001")
    other = said(photos, tmp_path, **changes)
    with pytest.raises(UsageError, match="the recipe differs") as refused:
        run(other, resume=found)
    assert difference in str(refused.value)
    assert "--allow-changed" in str(refused.value)
    made = run(other, resume=found, allow_changed=True)
    assert difference in made.told("the recipe changed; continuing with the new one: ")[0]
    assert [line["epoch"] for line in made.lines] == list(range(1, other["train"]["epochs"] + 1))
    assert made.run.result is not None
    assert run(str_recipe(found), resume=found).told("nothing to do")


def str_recipe(found: Path) -> dict[str, Any]:
    """Return the recipe that a run folder holds."""
    from finetune.recipe.document import read_recipe

    return read_recipe(found / "recipe.yaml").values


def test_a_changed_run_that_is_stopped_again_goes_on_by_its_own_recipe(photos: Path, tmp_path: Path) -> None:
    found = stopped(said(photos, tmp_path), 4)
    other = said(photos, tmp_path, optimizer={"lr": 1e-2})
    stop = At(lambda: os.kill(os.getpid(), signal.SIGTERM), step=8)
    with pytest.raises(Interrupted):
        run(other, resume=found, allow_changed=True, watchers=[stop])
    made = run(str_recipe(found), resume=found)
    assert not made.told("changed")
    assert made.run.recipe.optimizer.lr == 1e-2


def test_another_network_is_refused_even_then(photos: Path, tmp_path: Path) -> None:
    found = stopped(said(photos, tmp_path), 4)
    other = said(photos, tmp_path, head={"use": "mlp", "hidden": 8})
    with pytest.raises(UsageError, match="builds a different network; start a new run"):
        run(other, resume=found, allow_changed=True)


def test_other_images_are_refused_unless_allowed(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", each=10, size=20)
    what = said(photos, tmp_path / "runs")
    found = stopped(what, 4)
    folder(photos, each=11, size=20, seed=1)
    with pytest.raises(DataError, match=r"the images for 'train' and 'valid' changed .*--allow-changed"):
        run(what, resume=found)
    made = run(what, resume=found, allow_changed=True)
    (line,) = made.told("the images for 'train' and 'valid' changed")
    assert line.endswith("; continuing with the current images")
    assert made.run.result is not None


def poisoned(monkeypatch: pytest.MonkeyPatch, *steps: int, what: str = "loss") -> list[float]:
    """Let the loss, or a weight, be no number the first time that a step is made; return the rates of all steps."""
    from finetune.training import trainer

    step, left, rates = trainer.Trainer.step, list(steps), []

    def made(self: Trainer, batches: Any, epoch: int, number: int) -> float:
        loss = step(self, batches, epoch, number)
        rates.append(self.compute_rate())
        if left and self.global_step + 1 == left[0]:
            left.pop(0)
            if what == "loss":
                return float("nan")
            from mindspore import Tensor

            weight = next(p for p in self.network.get_parameters() if p.requires_grad)
            weight.set_data(Tensor(np.full(weight.shape, np.inf, np.float32)))
        return loss

    monkeypatch.setattr(trainer.Trainer, "step", made)
    return rates


def test_other_cores_are_said_and_allowed(
    photos: Path, plain: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = stopped(said(photos, tmp_path), 5)
    before = records.count_usable_cores()
    monkeypatch.setattr(records, "count_usable_cores", lambda: before + 6)
    made = run(said(photos, tmp_path), resume=found)
    assert made.told(f"the rest of this run will not be bit-exact: cores: {before} → {before + 6}")
    assert len(made.lines) == len(plain.lines)


def test_a_loss_that_is_no_number_ends_the_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, 8)
    with pytest.raises(DivergedError, match=r"the loss became nan in epoch 3, step 8, at learning rate .*\.jpg"):
        run(said(photos, tmp_path))
    assert saving.load_newest(tmp_path / "small-001" / "checkpoints")[0].state["step"] == 7


@pytest.mark.parametrize("what", ["loss", "weight"])
def test_a_rollback_goes_on_from_the_newest_checkpoint_at_half_the_rate(
    what: str, photos: Path, plain: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = poisoned(monkeypatch, 8, what=what)
    made = run(said(photos, tmp_path, train={"on_nonfinite": "rollback"}))
    assert made.told("rolled back to step 7; from now on the learning rate is 0.5 times that of the schedule")
    assert [line["epoch"] for line in made.lines] == [1, 2, 3, 4]
    assert made.lines[:2] == plain.lines[:2]
    assert made.lines[3]["lr"] == plain.lines[3]["lr"] / 2
    assert len(rates) == 4 * 3 + 1
    monkeypatch.undo()
    poisoned(monkeypatch, 8, what=what)
    assert same(run(said(photos, tmp_path, train={"on_nonfinite": "rollback"})), made)


def test_a_rollback_is_tried_three_times(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, 8, 8, 8, 8)
    with pytest.raises(DivergedError, match="3 rollbacks did not help"):
        run(said(photos, tmp_path, train={"on_nonfinite": "rollback"}))


def test_a_rollback_needs_a_checkpoint(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, 1)
    with pytest.raises(DivergedError, match="no checkpoint to roll back to yet"):
        run(said(photos, tmp_path, train={"on_nonfinite": "rollback"}))


def test_a_rolled_back_run_that_is_stopped_keeps_its_rate(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = said(photos, tmp_path, train={"on_nonfinite": "rollback"})
    poisoned(monkeypatch, 6)
    found = stopped(what, 9)
    monkeypatch.undo()
    made = run(what, resume=found)
    assert made.lines[3]["lr"] == made.run.recipe.optimizer.lr * 0.5 * 0.5 * (1 + np.cos(np.pi * 11 / 12))
