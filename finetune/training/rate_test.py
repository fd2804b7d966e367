"""Measured learning rate: a range test in the phase with the most trainable stages, before the first step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from finetune.errors import UsageError
from finetune.training import defaults, lr_finder, saving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from finetune.training.training_run import TrainingRun

STEPS, SHARE = (24, 48), 0.05  # fewest and most steps, and their share of all steps in between
FALLBACK = {"adamw": 1e-4, "sgd": 1e-3}  # used if the test finds no rate


def is_open(training: TrainingRun) -> bool:
    """Return whether the learning rate has to be measured before the epoch continues."""
    return training.run.epoch > 0 and training.recipe.optimizer.lr == "auto"


def settle_rate(training: TrainingRun, check: Callable[[], None]) -> None:
    """Measure the learning rate and write it into the run's recipe; the state of the run is restored afterwards.

    With several processes, all of them make the steps and use the rate of the first.
    """
    current = training.find_phase(training.run.epoch)
    widest = max((phase for phase in training.prepared.phases if phase.number), key=lambda phase: len(phase.trainable))
    if widest != current:
        training.enter(widest)
    with _restore_trainer(training):
        curve = lr_finder.measure_curve(training, widest, count_steps(training), check)
    rate, why = choose_rate(curve, training.recipe.optimizer.use)
    rate, why = training.world.broadcast([rate, why])
    training.settle("optimizer", lr=rate)
    training.run.say(f"optimizer.lr=auto chose {rate:.2g}: {why}")
    if widest != current:
        training.enter(current)


def count_steps(training: TrainingRun) -> int:
    """Return the number of rates to test: a small share of the run's steps, but enough for a useful curve."""
    fewest, most = STEPS
    if training.fitted is None:  # a falling curve needs more points than a rising one
        return most
    return min(most, max(fewest, round(SHARE * training.trainer.steps_per_epoch * training.epochs)))


def choose_rate(curve: lr_finder.Curve, optimizer: str) -> tuple[float, str]:
    """Return the rate of a curve, limited for pretrained stages, or a fallback rate; and the reason."""
    most = defaults.RATES[optimizer]
    try:
        rate, why = lr_finder.suggest_rate(curve)
    except UsageError as error:
        return FALLBACK[optimizer], f"the range test found no rate: {str(error).partition(';')[0]}"
    return (rate, why) if rate <= most else (most, f"the test suggests {rate:g} ({why}), limited for pretrained stages")


@contextmanager
def _restore_trainer(training: TrainingRun) -> Iterator[None]:
    """Restore the state of the trainer after a block that trains."""
    trainer = training.trainer
    step, updates = trainer.global_step, trainer.updates
    saved = saving.Checkpoint(arrays=trainer.read_arrays(kept=True), state={})
    scaling = trainer.scaling
    try:
        yield
    finally:
        trainer.restore(saved.select, updates)
        trainer.global_step, trainer.slower = step, 0.5**training.rollbacks
        if scaling is not None:
            trainer.update_loss_scale(scaling)
