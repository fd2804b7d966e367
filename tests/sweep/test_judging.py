"""How the runs of a sweep are compared: by the metric that they settle on, and on the same images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from finetune.cli import main
from finetune.recipe import plan as plans
from finetune.sweep import axes, runs
from tests.drawn import folder
from tests.features import tiny
from tests.training import pretrained

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("graph_mode")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("judging") / "photos")


def sweep(top: Path, asked: str, metric: str, values: list[float | None]) -> runs.Sweep:
    """Return a sweep over rates, of whose runs those are finished that have a value."""
    rows = [
        runs.Row(
            name=f"{number}",
            values={"optimizer.lr": number / 100},
            result={} if value is None else {"best": {"epoch": 1, f"val_{metric}": value}},
        )
        for number, value in enumerate(values)
    ]
    return runs.Sweep(folder=top, asked=asked, rows=rows)


@pytest.mark.parametrize(
    ("asked", "metric", "best"),
    [("auto", "loss", 1), ("auto", "macro_f1", 2), ("loss", "loss", 1), ("accuracy", "accuracy", 2)],
)
def test_the_best_run_is_that_with_the_least_loss_or_the_highest_score(
    tmp_path: Path, asked: str, metric: str, best: int
) -> None:
    made = sweep(tmp_path, asked, metric, [0.5, 0.2, 0.9, None])
    made.write()
    for each in (made, runs.open_sweep(tmp_path)):
        assert each.metric == metric
        assert [each.score(row) for row in each.rows] == [0.5, 0.2, 0.9, None]
        assert each.find_best() is each.rows[best]
        assert each.render_table()[0][1] == f"val_{metric}"


def test_a_sweep_that_has_no_result_yet_is_compared_by_the_loss(tmp_path: Path) -> None:
    made = sweep(tmp_path, "auto", "macro_f1", [None, None])
    assert made.metric == "loss"
    assert made.find_best() is None
    made.write()
    again = runs.open_sweep(tmp_path)
    again.rows[0].result = {"best": {"epoch": 3, "val_macro_f1": 0.7}}
    assert again.metric == "macro_f1"
    assert again.find_best() is again.rows[0]


def test_a_record_of_an_earlier_version_names_its_metric(tmp_path: Path) -> None:
    made = sweep(tmp_path, "accuracy", "accuracy", [0.5, 0.6])
    record = {key: value for key, value in made.to_json().items() if key != "asked"}
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    assert runs.open_sweep(tmp_path).metric == "accuracy"


@pytest.mark.parametrize(
    ("key", "values", "folds"),
    [
        ("freeze.use", ["head", "none"], ["off", "off"]),
        ("freeze.use", ["head", "head"], ["auto", "auto"]),
        ("freeze.use", ["none", "none"], ["auto", "auto"]),  # each run holds images back by itself
        ("train.epochs", [0, 3], ["off", "off"]),
        ("head.start", ["fitted", "random"], ["off", "off"]),
        ("validate.folds", [3, "auto"], [3, "auto"]),  # asked for
    ],
)
def test_runs_are_judged_on_the_same_images(
    photos: Path, tmp_path: Path, key: str, values: list[Any], folds: list[Any]
) -> None:
    catalogue, said = tiny.catalogue(), []
    base = pretrained.recipe(photos, tmp_path, freeze={"use": "head"}, train={"epochs": "auto"})
    made = [plans.load_plan(base, [f"{key}={json.dumps(value)}"], catalogue) for value in values]
    alike = axes.judge_alike(made, said.append)
    assert [plan.recipe.validate.folds for plan in alike] == folds
    assert bool(said) is (folds == ["off", "off"])


def test_a_sweep_over_epochs_chooses_by_the_loss_on_images_held_back(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = pretrained.recipe(photos, tmp_path / "runs", freeze={"use": "head"})
    (tmp_path / "small.yaml").write_text(json.dumps(said))
    assert main(["run", str(tmp_path / "small.yaml"), "train.epochs=[0,1]", "--json"]) == 0
    out = capsys.readouterr()
    found = json.loads(out.out.splitlines()[-1])
    assert "validate.folds=auto chose off for every run" in out.err
    assert found["metric"] == "loss"
    results = [run["result"] for run in found["runs"]]
    assert [result["validation"]["images"] for result in results] == [6, 6]
    losses = [result["best"]["val_loss"] for result in results]
    assert found["best"]["val_loss"] == min(losses)
    assert found["best"]["values"] == {"train.epochs": 0 if losses[0] <= losses[1] else 1}
