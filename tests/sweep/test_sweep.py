"""Sweeps: what is swept over, the runs one after the other, and going on; and the range test of the learning rate."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.cli import main
from finetune.errors import Interrupted, RecipeError, UsageError
from finetune.recipe import plan as plans
from finetune.sweep import axes, runs
from finetune.training import engine, lr_finder
from tests.drawn import folder

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("graph_mode")]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(plugins.load_plugins())


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("sweep")
    said = {
        "backbone": {"use": "resnext_nano", "weights": "none"},
        "dataset": {"use": "folder", "root": str(folder(top / "photos"))},
        "image": {"size": 32, "resize": 36},
        "augment": [],
        "freeze": {"use": "head"},
        "train": {"epochs": 2, "batch_size": 8},
        "callbacks": [],
        "runner": {"mode": "pynative"},
        "output": str(top / "runs"),
    }
    (top / "small.yaml").write_text(json.dumps(said))
    return top / "small.yaml"


def divided(recipe: Path, catalogue: Catalogue, *changes: str) -> tuple[list[tuple[str, Any]], list[str]]:
    found, rest = axes.split_axes(changes, lambda said: plans.load_plan(recipe, said, catalogue))
    return [(axis.key, axis.values) for axis in found], rest


@pytest.mark.parametrize(
    ("changes", "swept", "rest"),
    [
        (["optimizer.lr=[1e-3, 3e-3]"], [("optimizer.lr", (1e-3, 3e-3))], []),
        (["freeze.use=[head, none]", "seed=[1,2]"], [("freeze.use", ("head", "none")), ("seed", (1, 2))], []),
        (["optimizer.use=sgd", "optimizer.momentum=[0.8]"], [("optimizer.momentum", (0.8,))], ["optimizer.use=sgd"]),
        (["optimizer.betas=[0.9, 0.99]"], [], ["optimizer.betas=[0.9, 0.99]"]),
        (["optimizer.betas=[[0.9, 0.99], [0.8, 0.9]]"], [("optimizer.betas", ([0.9, 0.99], [0.8, 0.9]))], []),
        (["callbacks=[]"], [], ["callbacks=[]"]),
        (["image.mean=[0.5, 0.5, 0.5]", "seed=1"], [], ["image.mean=[0.5, 0.5, 0.5]", "seed=1"]),
        (["optimizer.lr=[a, b]"], [], ["optimizer.lr=[a, b]"]),  # so that the recipe says what is wrong with it
    ],
)
def test_lists_are_swept_over_where_one_value_is_taken(
    changes: list[str], swept: list[Any], rest: list[str], recipe: Path, catalogue: Catalogue
) -> None:
    assert divided(recipe, catalogue, *changes) == (swept, rest)


def test_a_key_has_one_list(recipe: Path, catalogue: Catalogue) -> None:
    with pytest.raises(UsageError, match="seed: listed twice; give all its values in one list"):
        divided(recipe, catalogue, "seed=[1, 2]", "seed=[3]")


def test_every_combination_has_a_name() -> None:
    two = [axes.Axis(key="optimizer.lr", values=(1e-3, 0.5)), axes.Axis(key="freeze.use", values=("head", "none"))]
    assert [trial.name for trial in axes.combine_axes(two)] == [
        "1-lr-0.001-use-head",
        "2-lr-0.001-use-none",
        "3-lr-0.5-use-head",
        "4-lr-0.5-use-none",
    ]
    with pytest.raises(UsageError, match="these lists make 10,000 runs; a sweep can have at most 1,000"):
        axes.combine_axes([axes.Axis(key="seed", values=tuple(range(100)))] * 2)


def test_a_value_is_tried_once() -> None:
    with pytest.raises(UsageError, match=r"optimizer\.lr: value 0\.001 is listed twice; remove one"):
        axes.combine_axes([axes.Axis(key="optimizer.lr", values=(1e-3, 1e-2, 1e-3))])


def test_mistakes_of_all_runs_come_before_the_first(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(recipe), "optimizer.lr=[1e-3, -1, oops]"]) == 2
    told = capsys.readouterr().err
    assert "override 'optimizer.lr=-1': optimizer.lr: must be more than 0, got -1" in told
    assert "override 'optimizer.lr=\"oops\"': optimizer.lr: expected a number or 'auto', got 'oops'" in told
    assert not (recipe.parent / "runs").exists()


def test_a_sweep(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", str(recipe), "optimizer.lr=[1e-6,1e-2]", "train.batch_size=[8,12]", f"output={tmp_path}"]
    assert main([*arguments, "--json"]) == 0
    out = capsys.readouterr()
    told = json.loads(out.out.splitlines()[-1])
    assert [run["values"] for run in told["runs"]] == [
        {"optimizer.lr": lr, "train.batch_size": size} for lr in (1e-6, 1e-2) for size in (8, 12)
    ]
    top = tmp_path / "small-sweep-001"
    assert told["best"]["values"]["optimizer.lr"] == 1e-2
    assert "run 4 of 4: optimizer.lr=0.01, train.batch_size=12" in out.err
    for run in told["runs"]:
        own = json.loads((Path(run["run"]) / "result.json").read_text())
        assert own == run["result"]
        assert (
            plans.load_plan(Path(run["run"]) / "recipe.yaml", [], Catalogue(plugins.load_plugins())).recipe.name
            == run["name"]
        )
    with (top / "sweep.csv").open() as file:
        titles, *rows = csv.reader(file)
    assert titles == ["optimizer.lr", "train.batch_size", "val_loss", "epoch", "seconds", "run"]
    assert len(rows) == 4
    drawn = (top / "sweep.svg").read_text()
    assert "validation loss by optimizer.lr" in drawn
    assert drawn.count("<circle") == 5

    assert main(["run", "--resume", str(top)]) == 0  # nothing is left to do
    table = capsys.readouterr().out
    assert "best" in table
    assert str(top / "sweep.svg") in table
    assert main(["run", str(recipe), "--resume", str(top)]) == 2
    assert "a sweep resumes with its own recipe; leave out recipe and overrides" in capsys.readouterr().err

    own = Path(told["runs"][0]["run"])
    assert main(["run", "--resume", str(own), "--extend", "1"]) == 0
    capsys.readouterr()
    assert main(["run", "--resume", str(top), "--json"]) == 0
    extended = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    more = [run["result"]["epochs"] - told["runs"][number]["result"]["epochs"] for number, run in enumerate(extended)]
    assert more == [1, 0, 0, 0]
    photo = next((recipe.parent / "photos").rglob("*.jpg"))
    content = photo.read_bytes()
    try:
        photo.write_bytes(content + b"\0")
        assert main(["run", "--resume", str(top)]) == 2
        assert "images: 1 changed; start a new sweep" in capsys.readouterr().err
    finally:
        photo.write_bytes(content)


def begun(recipe: Path, tmp_path: Path, catalogue: Catalogue, *, epochs: int = 2) -> runs.Sweep:
    def load(changes: Sequence[str]) -> plans.Plan:
        return plans.load_plan(recipe, [f"output={tmp_path}", f"train.epochs={epochs}", *changes], catalogue)

    trials = axes.combine_axes([axes.Axis(key="optimizer.lr", values=(1e-3, 1e30, 1e-2))])
    return runs.create_sweep(trials, runs.plan_trials(trials, load))


def test_a_run_that_diverges_is_a_row(
    recipe: Path, tmp_path: Path, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = begun(recipe, tmp_path, catalogue)
    assert main(["run", "--resume", str(sweep.folder)]) == 5
    out = capsys.readouterr()
    assert "1 of 3 runs diverged; remove their values" in out.err
    rows = runs.open_sweep(sweep.folder).rows
    assert [row.error is None for row in rows] == [True, False, True]
    assert "diverged" in out.out


def test_a_sweep_that_was_stopped_goes_on(recipe: Path, tmp_path: Path, catalogue: Catalogue) -> None:
    sweep, told = begun(recipe, tmp_path, catalogue, epochs=3), []

    def train(plan: plans.Plan, resume: Path | None) -> tuple[dict[str, Any], Path]:
        made = engine.fine_tune(plan, catalogue, resume=resume, watchers=[], say=told.append)
        return made.result or {}, made.folder

    before = signal.signal(signal.SIGTERM, lambda signum, frame: None)
    try:
        with pytest.raises(Interrupted):
            runs.run_sweep(sweep, catalogue, lambda plan, resume: interrupted(plan, catalogue), told.append)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told[-1] == f"resume the sweep with: finetune run --resume {sweep.folder}"
    first = sweep.folder / f"{sweep.rows[0].name}-001"
    assert list(first.glob("checkpoints/*"))
    again = runs.open_sweep(sweep.folder)
    runs.run_sweep(again, catalogue, train, told.append)
    assert again.rows[0].folder == str(first)
    assert [bool(row.result) for row in again.rows] == [True, False, True]


def interrupted(plan: plans.Plan, catalogue: Catalogue) -> tuple[dict[str, Any], Path]:
    from tests.training.test_engine import Watcher

    watcher = Watcher(("step_end", 4), lambda: os.kill(os.getpid(), signal.SIGTERM))
    made = engine.fine_tune(plan, catalogue, watchers=[watcher], say=lambda message: None)
    return made.result or {}, made.folder


def test_a_record_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(UsageError, match=r"sweep\.json: cannot be read \(.*\); start a new sweep"):
        runs.open_sweep(tmp_path)


def test_a_rate_is_found_where_the_loss_falls(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lr", str(recipe), "--plot", "lr.svg", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(found["rates"]) == len(found["losses"])
    assert 1e-4 < found["suggestion"] < 1
    assert found["stages"] == ["head"]
    assert "loss by learning rate" in (tmp_path / "lr.svg").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["lr.svg"]
    assert not (recipe.parent / "runs").exists()


def test_the_rate_that_is_suggested_trains_best(recipe: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    rate = lr_finder.find_rate(plans.load_plan(recipe, [], catalogue), catalogue, say=lambda message: None).suggestion
    losses = []
    for each in (rate / 100, rate):
        plan = plans.load_plan(recipe, [f"optimizer.lr={each}", f"output={tmp_path}"], catalogue)
        losses.append(engine.fine_tune(plan, catalogue, say=lambda message: None).history[-1]["val_loss"])
    assert losses[1] < losses[0]


def test_no_rate_is_suggested_where_the_loss_only_rises() -> None:
    with pytest.raises(UsageError, match="the loss does not fall at any rate from 1e-07 to 10; check the labels"):
        lr_finder.find_steepest([10.0**at for at in range(-20, 0)], list(range(20)))


def test_a_recipe_that_takes_no_such_list_says_so(recipe: Path, catalogue: Catalogue) -> None:
    with pytest.raises(RecipeError, match="expected a number or 'auto', got a list"):
        plans.load_plan(recipe, ["optimizer.lr=[a, b]"], catalogue)
