"""The range test: what a curve says, what it leaves behind, and the rate of a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune.errors import UsageError
from finetune.recipe import plan as plans
from finetune.training import lr_finder
from finetune.training.lr_finder import choose_rate, count_steps
from tests.drawn import folder
from tests.features import tiny
from tests.training import pretrained

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("graph_mode")]

RATES = np.geomspace(1e-5, 1e-2, 31).tolist()  # ten for each factor of ten
BEFORE = [0.1, 0.9, 0.2, 0.4]  # losses of four batches before any weight changes


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("rates") / "photos")


def curve(change: Callable[[float], float], classes: int = 10) -> lr_finder.Curve:
    """Return the curve of a fitted head whose loss changes with the rate."""
    after = [BEFORE[at % len(BEFORE)] + change(rate) for at, rate in enumerate(RATES)]
    return lr_finder.compare_losses(RATES, [*BEFORE, *after], len(BEFORE), classes)


def test_batches_that_differ_hide_no_rise() -> None:
    found = curve(lambda rate: 0.0 if rate < 9e-4 else 1.0)
    assert found.level == pytest.approx(0.4)
    assert np.allclose(found.smooth, [0.4 if rate < 9e-4 else 1.4 for rate in RATES])
    assert found.rises == pytest.approx(1e-3)
    assert lr_finder.suggest_rate(found) == (1e-4, "the loss of the fitted network rises at 0.001")


def test_a_single_loss_is_no_rise() -> None:
    found = curve(lambda rate: 9.0 if math.isclose(rate, 1e-4) else 0.0)
    assert found.rises is None
    assert lr_finder.suggest_rate(found) == (1e-3, "the loss of the fitted network does not rise up to 0.01")


@pytest.mark.parametrize(("classes", "least"), [(2, 0.1), (10, 0.25 * (math.log(10) - 0.4)), (1000, 1.627)])
def test_a_rise_is_a_share_of_the_way_to_guessing(classes: int, least: float) -> None:
    assert curve(lambda rate: (least - 0.01) * (rate > 1e-3), classes).rises is None
    assert curve(lambda rate: (least + 0.01) * (rate > 1.1e-3), classes).rises == pytest.approx(10**-2.9)


def test_a_loss_that_falls_at_first_is_still_judged_by_where_it_rises() -> None:
    found = curve(lambda rate: -0.3 if rate < 4e-3 else 2.0)
    assert found.rises == pytest.approx(10**-2.3)
    assert lr_finder.suggest_rate(found)[0] == pytest.approx(5.0e-4)


def test_a_head_that_starts_at_random_gets_the_rate_at_which_its_loss_falls_fastest() -> None:
    losses = [2.3 - 2.0 / (1 + (3e-3 / rate) ** 2) for rate in RATES]
    found = lr_finder.Curve(rates=tuple(RATES), losses=tuple(losses), smooth=tuple(losses))
    rate, why = lr_finder.suggest_rate(found)
    assert 2e-3 < rate < 4e-3
    assert why == "the loss falls fastest at this rate"
    capped = f"the test suggests {rate:g} (the loss falls fastest at this rate), limited for pretrained stages"
    assert choose_rate(found, "adamw") == (1e-3, capped)
    assert choose_rate(found, "sgd") == (rate, why)


FLAT = lr_finder.Curve(rates=tuple(RATES), losses=(1.0,) * 31, smooth=tuple(np.linspace(1.0, 2.0, 31)))


def test_a_run_takes_a_usual_rate_where_the_test_finds_none() -> None:
    with pytest.raises(UsageError, match="the loss does not fall at any rate"):
        lr_finder.suggest_rate(FLAT)
    why = "the range test found no rate: the loss does not fall at any rate from 1e-07 to 10"
    assert choose_rate(FLAT, "adamw") == (1e-4, why)
    assert choose_rate(FLAT, "sgd") == (1e-3, why)
    never = lr_finder.compare_losses([], BEFORE, len(BEFORE), 10)
    assert choose_rate(never, "adamw") == (
        1e-4,
        "the range test found no rate: the loss is not finite at any rate",
    )


@pytest.mark.parametrize(
    ("sections"),
    [
        {"optimizer": {"use": "sgd", "momentum": 0.9}, "train": {"accumulate": 2}, "freeze": {"use": "head"}},
        {"train": {"ema": 0.9, "mixup": 0.2}, "head": {"dropout": 0.3}},
        {"freeze": {"use": "gradual", "schedule": {1: "head", 2: "last"}}},
        {"cache": {"features": "off"}},
    ],
    ids=["sgd", "ema", "gradual", "random"],
)
def test_the_test_leaves_no_trace_but_the_rate(photos: Path, tmp_path: Path, sections: dict[str, Any]) -> None:
    measured = pretrained.run(photos, tmp_path, **sections)
    rate = measured.run.recipe.optimizer.lr
    assert isinstance(rate, float)
    said = measured.told(f"optimizer.lr=auto chose {rate:.2g}: ")
    assert len(said) == 1
    written = plans.load_plan(measured.run.folder / "recipe.yaml", [], tiny.catalogue()).recipe
    assert written.optimizer.lr == rate == float(f"{rate:.2g}")
    optimizer = {**sections.get("optimizer", {}), "lr": rate}
    given = pretrained.run(photos, tmp_path, **{**sections, "optimizer": optimizer})
    assert given.told("optimizer.lr=auto") == []
    assert given.weights == measured.weights
    assert given.lines == measured.lines


def test_two_runs_measure_the_same(photos: Path, tmp_path: Path) -> None:
    first, second = (pretrained.run(photos, tmp_path, freeze={"use": "head"}, train={"epochs": 1}) for _ in range(2))
    assert first.weights == second.weights
    assert first.run.recipe.optimizer.lr == second.run.recipe.optimizer.lr


@pytest.mark.parametrize(
    ("steps", "epochs", "tested"), [(4, 2, 24), (20, 30, 30), (100, 6, 30), (1000, 10, 48), (10, 50, 25)]
)
def test_a_test_costs_a_small_share_of_the_run(steps: int, epochs: int, tested: int) -> None:
    class Trainer:
        steps_per_epoch = steps

    class TrainingRun:
        trainer = Trainer()
        fitted: Any = {}  # noqa: RUF012 - as a training has it

    training: Any = TrainingRun()
    training.epochs = epochs
    assert count_steps(training) == tested
    training.fitted = None
    assert count_steps(training) == 48


def test_the_command_tests_what_the_run_would(photos: Path, tmp_path: Path) -> None:
    catalogue = tiny.catalogue()
    plan = plans.load_plan(pretrained.recipe(photos, tmp_path), [], catalogue)
    found = lr_finder.find_rate(plan, catalogue, say=lambda message: None)
    assert found.stages == ("layer4", "head")
    assert found.recipe == "auto"
    assert found.steps == 8
    assert found.why.startswith("the loss of the fitted network")
    assert found.suggestion <= 1e-3
    assert len(found.rates) == len(found.losses) <= lr_finder.STEPS
