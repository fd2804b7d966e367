"""The callback that ends a run which no longer gets better."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from finetune.run import Run
from finetune_plugins import early_stopping

MakeRun = Callable[..., Run]
Fire = Callable[..., None]
FireOn = Callable[[object], Fire]


def callback(**options: Any) -> object:
    """Build the callback from the options of a recipe."""
    component = next(iter(early_stopping.finetune_callbacks()))
    built: object = component.build(component.options.model_validate(options))
    return built


def evaluate(run: Run, fire: Fire, values: Sequence[float | None], *, metric: str = "accuracy", first: int = 1) -> int:
    """Fire one epoch for each value, None being one without an evaluation; return the epoch of the stop, or 0."""
    for epoch, value in enumerate(values, first):
        run.epoch = epoch
        metrics = {"epoch": epoch, "train_loss": 0.5} | ({} if value is None else {f"val_{metric}": value})
        fire("finetune_epoch_end", run=run, epoch=epoch, metrics=metrics)
        if run.stop_reason:
            return epoch
    return 0


def test_stops_after_patience_without_a_better_value(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run()
    assert evaluate(run, fire_on(callback(patience=3)), [0.5, 0.93, 0.9, 0.93, 0.92, 0.99]) == 5
    assert run.stop_reason == "val_accuracy did not improve for 3 evaluations; best 0.93 in epoch 2"


def test_does_not_stop_while_it_gets_better(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run()
    assert evaluate(run, fire_on(callback(patience=1)), [0.1, 0.2, 0.3, 0.4]) == 0


def test_counts_evaluations_not_epochs(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run()
    assert evaluate(run, fire_on(callback(patience=2)), [0.5, None, None, 0.4, None, 0.4]) == 6


def test_a_lower_loss_is_better(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run({"evaluate": {"metric": "loss"}})
    fire = fire_on(callback(patience=2))
    assert evaluate(run, fire, [2.0, 1.0, 0.5, 0.6, 0.7], metric="loss") == 5
    assert run.stop_reason == "val_loss did not improve for 2 evaluations; best 0.5 in epoch 3"


@pytest.mark.parametrize("name", ["top5", "val_top5"])
def test_watches_the_metric_it_is_given(new_run: MakeRun, fire_on: FireOn, name: str) -> None:
    run = new_run()
    assert evaluate(run, fire_on(callback(metric=name, patience=1)), [0.5, 0.4], metric="top5") == 2


def test_a_gain_of_no_more_than_min_delta_is_none(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run()
    assert evaluate(run, fire_on(callback(patience=2, min_delta=0.125)), [0.5, 0.625, 0.75, 0.8, 0.85]) == 5
    assert run.state["early_stopping"]["best"] == 0.75


def test_not_a_number_is_never_better(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run()
    assert evaluate(run, fire_on(callback(patience=3)), [float("nan"), float("inf"), float("nan")]) == 3
    assert run.stop_reason == "val_accuracy did not improve for 3 evaluations"
    json.dumps(run.state, allow_nan=False)


def test_a_resumed_run_goes_on_counting(new_run: MakeRun, fire_on: FireOn) -> None:
    first = new_run()
    assert evaluate(first, fire_on(callback(patience=3)), [0.9, 0.8, 0.8]) == 0
    second = new_run(state=json.loads(json.dumps(first.state)), resumed=True)
    assert evaluate(second, fire_on(callback(patience=3)), [0.8, 0.95], first=4) == 4
    assert second.stop_reason == "val_accuracy did not improve for 3 evaluations; best 0.9 in epoch 1"


@pytest.mark.parametrize("name", ["val_acuracy", "acuracy", "Accuracy"])
def test_a_wrong_metric_is_an_error_of_the_recipe(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"no metric named '{name}'; did you mean 'accuracy'\?"):
        callback(metric=name)


@pytest.mark.parametrize("options", [{"patience": 0}, {"min_delta": -0.1}, {"min_delta": float("nan")}])
def test_refuses_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        callback(**options)


def test_an_extended_run_waits_again(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run()
    fire = fire_on(callback(patience=2))
    assert evaluate(run, fire, [0.5, 0.4, 0.4]) == 3
    run.state, run.stop_reason = json.loads(json.dumps(run.state)), None
    fire("finetune_run_start", run=run)
    assert evaluate(run, fire, [0.4, 0.4], first=4) == 5
    assert run.stop_reason == "val_accuracy did not improve for 2 evaluations; best 0.5 in epoch 1"
