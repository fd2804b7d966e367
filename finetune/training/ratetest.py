"""The learning rate of a run, measured: a range test in the phase that trains most, before the first step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from finetune.errors import UsageError
from finetune.training import defaults, rates, saving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from finetune.training.training_run import TrainingRun

STEPS, SHARE = (24, 48), 0.05  # fewest and most steps, and their share of all steps in between
FALLBACK = {"adamw": 1e-4, "sgd": 1e-3}  # where the test finds nothing


def is_open(training: TrainingRun) -> bool:
    """Tell whether the learning rate is to be measured before the epoch continues."""
    return training.run.epoch > 0 and training.recipe.optimizer.lr == "auto"


def settle_rate(training: TrainingRun, check: Callable[[], None]) -> None:
    """Measure the learning rate and write it into the run's recipe; the run stands where it stood before.

    Of several processes, all make the steps and take the first one's rate.
    """
    current = training.phase(training.run.epoch)
    widest = max((phase for phase in training.prepared.phases if phase.number), key=lambda phase: len(phase.trainable))
    if widest != current:
        training.enter(widest)
    with _put_back(training):
        curve = rates.measure(training, widest, count_steps(training), check)
    rate, why = choose_rate(curve, training.recipe.optimizer.use)
    rate, why = training.world.from_first([rate, why])
    training.settle("optimizer", lr=rate)
    training.run.say(f"optimizer.lr=auto chose {rate:.2g}: {why}")
    if widest != current:
        training.enter(current)


def count_steps(training: TrainingRun) -> int:
    """Return how many rates are tested: a small share of the run's steps, but enough to see something."""
    fewest, most = STEPS
    if training.fitted is None:  # a curve that falls takes more points than one that rises
        return most
    return min(most, max(fewest, round(SHARE * training.trainer.steps_per_epoch * training.epochs)))


def choose_rate(curve: rates.Curve, optimizer: str) -> tuple[float, str]:
    """Return the rate of a curve, no higher than pretrained stages bear, or else a usual one; and why."""
    most = defaults.RATES[optimizer]
    try:
        rate, why = rates.suggest(curve)
        return (rate, why) if rate <= most else (most, f"{why}, at {rate:g}, but pretrained stages take no more")
    except UsageError as error:
        return FALLBACK[optimizer], f"a range test found none: {str(error).partition(';')[0]}"


@contextmanager
def _put_back(training: TrainingRun) -> Iterator[None]:
    """Give the trainer back all that it holds after a block that trains."""
    trainer = training.trainer
    step, updates = trainer.global_step, trainer.updates
    saved = saving.Checkpoint(arrays=trainer.arrays(kept=True), state={})
    scaling = trainer.scaling
    try:
        yield
    finally:
        trainer.restore(saved.part, updates)
        trainer.global_step, trainer.slower = step, 0.5**training.rollbacks
        if scaling is not None:
            trainer.rescale(scaling)
