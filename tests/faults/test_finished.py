"""Finished runs that are resumed: nothing to do, something differs, or they train on."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from finetune.errors import DataError, Interrupted, PluginError, UsageError
from finetune.recipe import plan
from finetune.training import engine, records, saving
from tests.drawn import folder
from tests.features import tiny
from tests.features.tiny import At, run

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.training.training_run import TrainingRun

recipe = partial(tiny.recipe, runner={"mode": "pynative"})
pytestmark = [pytest.mark.usefixtures("graph_mode"), pytest.mark.once]
WAYS_OUT = ("remove --resume to start a new run", "--extend EPOCHS", "--allow-changed")


def refused(what: dict[str, Any], found: Path, **more: Any) -> str:
    """Return the message of a finished run that differs from what it is asked for."""
    with pytest.raises(UsageError) as caught:
        run(what, resume=found, **more)
    return str(caught.value)


def made(photos: Path, output: Path, **sections: Any) -> tuple[dict[str, Any], Path]:
    """Return a recipe of two epochs, and the folder of its finished run."""
    what = recipe(photos, output, callbacks=[{"use": "checkpoint"}], **sections)
    return what, run(what).run.folder


def test_a_finished_run_says_what_differs_and_both_ways_out(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", each=5, size=20)
    what, found = made(photos, tmp_path / "runs")
    assert run(what, resume=found).told("nothing to do")
    same = {**what, "name": "other", "callbacks": [], "runner": {"mode": "graph"}}
    other_name = run(same, resume=found)
    assert other_name.told("nothing to do")
    assert other_name.told("callbacks have no effect on finished epochs")
    changed = {**what, "optimizer": {"use": "adamw", "lr": 1e-2}, "freeze": {"use": "none"}, "seed": 7}
    message = refused(changed, found)
    assert all(way in message for way in WAYS_OUT)
    for line in ("optimizer.lr: 0.003 → 0.01", "freeze.use: 'head' → 'none'", "seed: 42 → 7"):
        assert f"  {line}\n" in message
    assert "optimizer.lr: 0.003 → 0.01" in refused(changed, found, extend=1)
    assert "train.epochs: 2 → 5" in refused(recipe(photos, tmp_path / "runs", train={"epochs": 5}), found)
    assert "train.epochs: 2 → 1" in refused(recipe(photos, tmp_path / "runs", train={"epochs": 1}), found)


def test_images_are_compared_by_their_contents(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", each=5, size=20)
    what, found = made(photos, tmp_path / "runs")
    red = sorted((photos / "red").iterdir())
    (photos / "red" / "new.jpg").write_bytes(red[0].read_bytes() + b"\0")
    red[1].unlink()
    red[2].write_bytes(red[2].read_bytes() + b"\0")
    message = refused(what, found)
    assert "  images: 1 added, 1 removed, 1 changed" in message
    assert all(way in message for way in WAYS_OUT)
    (found / "split.csv").unlink()
    assert "  images: changed\n" in refused(what, found)


def test_renamed_and_relabelled_images(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", each=5, size=20)
    what, found = made(photos, tmp_path / "runs")
    (photos / "red" / "00.jpg").rename(photos / "blue" / "zz.jpg")
    assert "images: 1 relabelled" in refused(what, found)


def test_extending_is_the_longer_run_from_there_on(photos: Path, tmp_path: Path) -> None:
    what, found = made(photos, tmp_path / "short", schedule={"use": "constant"})
    long = run(recipe(photos, tmp_path / "long", schedule={"use": "constant"}, train={"epochs": 4}))
    extended = run(what, resume=found, extend=2)
    assert extended.lines == long.lines
    assert extended.weights == long.weights
    result = json.loads((found / "result.json").read_text())
    assert (result["epochs"], result["planned_epochs"]) == (4, 4)
    assert result["best"] == long.run.result["best"]  # type: ignore[index]
    assert len((found / "metrics.jsonl").read_text().splitlines()) == 4
    (line,) = extended.told("extending ")
    assert "epochs 3 to 4; the schedule is computed over all 4 epochs" in line
    longer = recipe(photos, tmp_path / "short", schedule={"use": "constant"}, train={"epochs": 4})
    assert run(longer, resume=found).told("nothing to do")


def test_a_raised_number_of_epochs_is_the_same(photos: Path, tmp_path: Path) -> None:
    what, found = made(photos, tmp_path)
    longer = recipe(photos, tmp_path, train={"epochs": 4})
    extended = run(longer, resume=found, allow_changed=True)
    rate = what["optimizer"]["lr"]
    assert extended.told("the learning rate continues at 0.0015")  # half a cosine, half of it behind
    assert [line["epoch"] for line in extended.lines] == [1, 2, 3, 4]
    assert extended.lines[1]["lr"] < 0.2 * rate < extended.lines[2]["lr"]
    other = recipe(photos, tmp_path, train={"epochs": 4}, optimizer={"lr": 1e-2})
    assert "has already trained 4 epochs" in refused(other, found, allow_changed=True)


def test_an_early_stop_is_extended_and_waits_again(photos: Path, tmp_path: Path) -> None:
    stop = [{"use": "checkpoint"}, {"use": "early_stopping", "patience": 1, "min_delta": 0.99}]
    what = {**recipe(photos, tmp_path, train={"epochs": 9}), "callbacks": stop}
    first = run(what)
    assert (first.run.epoch, run(what, resume=first.run.folder).told("nothing to do") != []) == (2, True)
    patient = {**what, "callbacks": [*stop[:1], {**stop[1], "patience": 3}]}
    assert "'patience': 1, 'min_delta': 0.99}] → [" in refused(patient, first.run.folder)
    again = run(what, resume=first.run.folder, extend=3)
    assert again.run.epoch == 3
    assert again.run.result is not None
    assert again.run.result["stopped_early"] is not None


def test_what_cannot_be_extended(photos: Path, tmp_path: Path) -> None:
    what = recipe(photos, tmp_path)
    with pytest.raises(Interrupted):
        run(what, watchers=[At(lambda: os.kill(os.getpid(), signal.SIGTERM), step=1)])
    (found,) = tmp_path.iterdir()
    assert "is not finished; finish it first" in refused(what, found, extend=1)
    run(what, resume=found)
    assert "at most 100,000 are allowed" in refused(what, found, extend=10**6)
    for file in saving.list_checkpoints(found / "checkpoints"):
        file.unlink()
    message = refused(what, found, extend=1)
    assert "its checkpoints were deleted" in message
    assert f"backbone.weights={found}" in message


@pytest.mark.parametrize("after", ["checkpoint", "recipe", "first step"])
def test_a_kill_while_extending_is_resumed(
    after: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*arguments: Any) -> None:
        raise Killed

    plain_what, plain = made(photos, tmp_path / "plain")
    expected = run(plain_what, resume=plain, extend=2)
    what, found = made(photos, tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr("finetune.training.training_run.TrainingRun.save_after_error", lambda self: None)
        if after == "checkpoint":
            patch.setattr(records, "write_changed", kill)
        if after == "recipe":
            patch.setattr(records, "write_data", kill)
        watchers = [At(kill, step=8)] if after == "first step" else []
        with pytest.raises((Killed, PluginError)):
            run(what, resume=found, extend=2, watchers=watchers)
    more = {"extend": 2} if after == "checkpoint" else {}
    resumed = run(own_recipe(found), resume=found, **more)
    assert not resumed.told("nothing to do")
    assert resumed.lines == expected.lines
    assert resumed.weights == expected.weights


def own_recipe(found: Path) -> dict[str, Any]:
    """Return the recipe that a run folder holds."""
    from finetune.recipe.document import read_recipe

    return read_recipe(found / "recipe.yaml").values


def test_a_changed_run_that_is_killed_at_once_resumes_by_its_own_recipe(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = recipe(photos, tmp_path, callbacks=[{"use": "checkpoint", "every": "1 step"}])
    with pytest.raises(Interrupted):
        run(what, watchers=[At(lambda: os.kill(os.getpid(), signal.SIGTERM), step=1)])
    (found,) = tmp_path.iterdir()

    def killed(self: TrainingRun) -> None:
        raise SystemExit

    monkeypatch.setattr("finetune.training.training_run.TrainingRun.begin_epoch", lambda self, epoch: killed(self))
    with pytest.raises(SystemExit):
        run({**what, "optimizer": {"use": "adamw", "lr": 1e-2}}, resume=found, allow_changed=True)
    monkeypatch.undo()
    assert not run(own_recipe(found), resume=found).told("changed")


@pytest.mark.parametrize(
    "changed",
    [{"evaluate": {"metric": "accuracy"}}, {"image": {"size": 24, "resize": 28}}],
    ids=["another metric", "another size"],
)
def test_the_best_epoch_is_chosen_again_where_epochs_are_judged_differently(
    photos: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    what, found = made(photos, tmp_path)
    done = run({**what, **changed}, resume=found, extend=1, allow_changed=True).run
    assert done.result is not None
    assert done.result["best"]["epoch"] == 3
    metric = changed.get("evaluate", {}).get("metric", "loss")
    assert done.result["best"][f"val_{metric}"] == done.history[-1][f"val_{metric}"]


def test_another_network_leaves_a_new_run_as_the_only_way_out(photos: Path, tmp_path: Path) -> None:
    what, found = made(photos, tmp_path)
    message = refused({**what, "head": {"use": "mlp"}}, found)
    assert "remove --resume to start a new run" in message
    assert "--allow-changed" not in message


def test_photos_that_are_gone_are_an_error_of_the_data(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", each=5, size=20)
    what, found = made(photos, tmp_path / "runs")
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no folder"):
        run(what, resume=found)


def test_the_recipe_in_the_run_folder_is_compared_with_what_the_run_was_made_of(photos: Path, tmp_path: Path) -> None:
    _, found = made(photos, tmp_path)
    file = found / "recipe.yaml"
    edited = file.read_text(encoding="utf-8").replace("seed: 42", "seed: 7").replace("lr: 0.003", "lr: 0.01")
    file.write_text(edited, encoding="utf-8")
    catalogue = tiny.catalogue()
    with pytest.raises(UsageError, match=r"optimizer.lr: 0.003 → 0.01") as caught:
        engine.fine_tune(plan.load_plan(file, [], catalogue), catalogue, resume=found, say=lambda message: None)
    assert "seed: 42 → 7" in str(caught.value)
