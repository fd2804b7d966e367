"""The callback that asks for checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from finetune.run import Best, Run
from finetune_plugins import checkpoint

MakeRun = Callable[..., Run]
FireOn = Callable[[object], Callable[..., None]]


def callback(**options: Any) -> object:
    """Build the callback from the options of a recipe."""
    component = next(iter(checkpoint.finetune_callbacks()))
    built: object = component.build(component.options.model_validate(options))
    return built


def saved(run: Run, fire: Callable[..., None], better_in: tuple[int, ...] = ()) -> list[int]:
    """Return the epochs of a run in which a checkpoint was asked for."""
    epochs: list[int] = []
    for epoch in range(1, run.recipe.train.epochs + 1):
        run.epoch, run.checkpoint_keep = epoch, None
        if epoch in better_in:
            run.best = Best(epoch=epoch, value=epoch / 10)
        fire("finetune_epoch_end", run=run, epoch=epoch, metrics={})
        epochs += [epoch] if run.checkpoint_keep is not None else []
    return epochs


def test_saves_each_epoch_and_keeps_two(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run()
    assert saved(run, fire_on(callback())) == [1, 2, 3, 4, 5, 6]
    assert run.checkpoint_keep == 2


def test_saves_every_few_epochs_and_the_last(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run({"train": {"epochs": 8}})
    assert saved(run, fire_on(callback(every=3, keep=5))) == [3, 6, 8]
    assert run.checkpoint_keep == 5


def test_saves_a_new_best_epoch_at_once(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run({"train": {"epochs": 10}})
    assert saved(run, fire_on(callback(every=4)), better_in=(1, 2, 7)) == [1, 2, 4, 7, 8, 10]


def test_saves_the_epoch_in_which_the_run_is_stopped(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run()
    run.stop("enough")
    fire_on(callback(every=4))("finetune_epoch_end", run=run, epoch=2, metrics={})
    assert run.checkpoint_keep == 2


@pytest.mark.parametrize(
    "options",
    [
        {"keep": 0},
        {"every": 0},
        {"every": 1.5},
        {"evry": 2},
        {"every": "often"},
        {"every": "0 steps"},
        {"every": "5"},
        {"every": "2 weeks"},
    ],
)
def test_refuses_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        callback(**options)


def test_saves_every_few_steps(new_run: MakeRun, fire_on: FireOn) -> None:
    run, fire = new_run(), fire_on(callback(every="3 steps"))
    asked = []
    for step in range(1, 11):
        run.checkpoint_keep = None
        fire("finetune_step_end", run=run, step=step, loss=0.0)
        asked += [step] if run.checkpoint_keep else []
    assert asked == [3, 6, 9]
    assert saved(run, fire, better_in=(2,)) == [2, 6]  # the best epoch and the last all the same


def test_saves_every_few_minutes(new_run: MakeRun, fire_on: FireOn, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    run, fire = new_run(), fire_on(callback(every="2 minutes"))
    asked = []
    for step in range(1, 11):
        run.checkpoint_keep, now[0] = None, now[0] + 50
        fire("finetune_step_end", run=run, step=step, loss=0.0)
        asked += [step] if run.checkpoint_keep else []
    assert asked == [3, 6, 9]


@pytest.mark.parametrize("every", [2, "2 epochs", "2 epoch"])
def test_a_number_alone_is_epochs(every: object, new_run: MakeRun, fire_on: FireOn) -> None:
    assert saved(new_run(), fire_on(callback(every=every))) == [2, 4, 6]
