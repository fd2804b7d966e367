"""The learning rate of a run, measured: a range test in the phase that trains most, before the first step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from finetune.errors import UsageError
from finetune.training import defaults, rates, saving, settling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from finetune.training.session import Session

STEPS, SHARE = (24, 48), 0.05  # fewest and most steps, and their share of all steps in between
FALLBACK = {"adamw": 1e-4, "sgd": 1e-3}  # where the test finds nothing


def is_open(session: Session) -> bool:
    """Tell whether the learning rate is to be measured before the epoch continues."""
    return session.run.epoch > 0 and session.recipe.optimizer.lr == "auto"


def settle_rate(session: Session, check: Callable[[], None]) -> None:
    """Measure the learning rate and write it into the run's recipe; the run stands where it stood before.

    Of several processes, all make the steps and take the first one's rate.
    """
    current = session.phase(session.run.epoch)
    widest = max((phase for phase in session.prepared.phases if phase.number), key=lambda phase: len(phase.trainable))
    if widest != current:
        session.enter(widest)
    with _put_back(session):
        curve = rates.measure(session, widest, count_steps(session), check)
    rate, why = choose_rate(curve, session.recipe.optimizer.use)
    rate, why = session.world.from_first([rate, why])
    settling.settle(session, "optimizer", lr=rate)
    session.run.say(f"optimizer.lr=auto chose {rate:.2g}: {why}")
    if widest != current:
        session.enter(current)


def count_steps(session: Session) -> int:
    """Return how many rates are tested: a small share of the run's steps, but enough to see something."""
    fewest, most = STEPS
    if session.fitted is None:  # a curve that falls takes more points than one that rises
        return most
    return min(most, max(fewest, round(SHARE * session.trainer.steps_per_epoch * session.epochs)))


def choose_rate(curve: rates.Curve, optimizer: str) -> tuple[float, str]:
    """Return the rate of a curve, no higher than pretrained stages bear, or else a usual one; and why."""
    most = defaults.RATES[optimizer]
    try:
        rate, why = rates.suggest(curve)
        return (rate, why) if rate <= most else (most, f"{why}, at {rate:g}, but pretrained stages take no more")
    except UsageError as error:
        return FALLBACK[optimizer], f"a range test found none: {str(error).partition(';')[0]}"


@contextmanager
def _put_back(session: Session) -> Iterator[None]:
    """Give the trainer back all that it holds after a block that trains."""
    trainer = session.trainer
    step, updates = trainer.global_step, trainer.updates
    saved = saving.Checkpoint(arrays=trainer.arrays(kept=True), state={})
    scaling = trainer.scaling
    try:
        yield
    finally:
        trainer.restore(saved.part, updates)
        trainer.global_step, trainer.slower = step, 0.5**session.rollbacks
        if scaling is not None:
            trainer.rescale(scaling)
