"""A range test of the learning rate (Smith 2017): short steps at ever higher rates, and what they do to the loss."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import numpy as np

from finetune.errors import DivergedError, UsageError
from finetune.recipe.models import Constant
from finetune.training import fitting
from finetune.training.phases import FITTING
from finetune.training.prepare import prepare
from finetune.training.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from finetune.catalogue import Catalogue
    from finetune.data.loader import Batch
    from finetune.recipe.plan import Plan
    from finetune.training.feed import Feed
    from finetune.training.phases import Phase
    from finetune.training.trainer import Trainer

LOWEST, HIGHEST = 1e-7, 10.0
STEPS = 100
MEMORY = 0.9  # of the moving average that smooths the loss
FALLS = 0.8  # of the loss at the lowest rates, below which it has clearly fallen
RISES = 1.1  # times the loss at the lowest rates, above which it has clearly risen
BELOW_RISE = 30.0  # times lower than the rate at which the loss rises is one at which it does not
SPAN, FIRST = 4, 10  # losses on either side of a slope, and that do not count
DIVERGED = 4.0  # times the least loss so far ends the test


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The smoothed ``losses`` at each of the ``rates``, and the rate that is suggested.

    ``stages`` are those that trained, and ``recipe`` is the rate that the recipe has; ``why`` the rate is suggested.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float
    why: str
    stages: tuple[str, ...]
    recipe: float | Literal["auto"]


def find(plan: Plan, catalogue: Catalogue, *, steps: int = STEPS, say: Callable[[str], None] = print) -> Found:
    """Test rates on the features that a run of the plan would use, and write no run folder.

    A head that starts fitted is fitted first; then the phase that trains most is tested, else the first one. Raises
    ``UsageError`` where the loss falls at no rate.
    """
    prepared = prepare(plan, catalogue, say=say)
    with TemporaryDirectory() as folder:
        session = Session(prepared, Path(folder), say=say, resumed=False)
        try:
            phase = begin(session)
            with bare_rate(session):
                each = batches(session.feed, phase, session.recipe.train.accumulate)
                rates, losses = tested(session.trainer, each, steps)
        finally:
            session.close()
    smooth = smoothed(losses)
    suggestion, why = suggest(rates, smooth)
    return Found(
        rates=tuple(rates),
        losses=tuple(smooth),
        suggestion=suggestion,
        why=why,
        stages=phase.trainable,
        recipe=plan.recipe.optimizer.lr,
    )


def begin(session: Session) -> Phase:
    """Enter the phase that is to be tested, with the head that it would begin with; return it."""
    planned = session.prepared.phases
    trained = [phase for phase in planned if phase.number]
    if not trained:
        only = replace(FITTING, number=1, first=1, last=1)
        session.run.say("this recipe only fits the head, by no learning rate; tested is a head that starts at random")
        session.enter(only)
        return only
    if planned[0] == FITTING:
        session.begin_epoch(0)
        fitting.fit_head(session, lambda: None)
        trained.sort(key=lambda phase: -len(phase.trainable))
    session.enter(trained[0])
    return trained[0]


@contextmanager
def bare_rate(session: Session) -> Iterator[None]:
    """Let the trainer's factor alone be the learning rate for the length of a block."""
    recipe = session.recipe
    optimizer = recipe.optimizer.model_copy(update={"lr": 1.0})
    constant = Constant(use="constant", phase_warmup=0.0)
    session.trainer.recipe = recipe.model_copy(update={"optimizer": optimizer, "schedule": constant})
    try:
        yield
    finally:
        session.trainer.recipe = recipe


def batches(
    feed: Feed, phase: Phase, accumulate: int, check: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, int, list[Batch]]]:
    """Yield epoch, number and batches of one step after another, going through the phase's epochs for ever."""
    for turn in count():
        epoch = phase.first + turn % (phase.last - phase.first + 1)
        each = feed.training(epoch, 0, check)
        for number in count():
            group = list(islice(each, accumulate))
            if not group:
                break
            check()
            yield epoch, number, group


def tested(
    trainer: Trainer, steps: Iterator[tuple[int, int, list[Batch]]], many: int
) -> tuple[list[float], list[float]]:
    """Return the rates, each a little higher than the one before, and the losses before a step at each."""
    rates: list[float] = []
    losses: list[float] = []
    for rate, (epoch, number, group) in zip(np.geomspace(LOWEST, HIGHEST, many).tolist(), steps, strict=False):
        trainer.slower = rate
        try:
            loss = trainer.step(group, epoch, number)
        except DivergedError:  # in mixed precision no scale of the loss was small enough
            break
        if not math.isfinite(loss):
            break
        rates.append(rate)
        losses.append(loss)
        smooth = smoothed(losses)
        if smooth[-1] > DIVERGED * min(smooth):
            break
    return rates, losses


def smoothed(losses: list[float]) -> list[float]:
    """Return a moving average, which begins without the bias of its first value."""
    found, mean = [], 0.0
    for number, loss in enumerate(losses, 1):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        found.append(mean / (1 - MEMORY**number))
    return found


def suggest(rates: list[float], losses: list[float]) -> tuple[float, str]:
    """Return a rate, and why: where the loss falls fastest, or well below where it rises if it is low from the start.

    The latter is so where the head is fitted: the loss can hardly fall within the few steps of the test.
    """
    start = losses[min(FIRST, len(losses) - 1)] if losses else 0.0
    if losses and min(losses) > FALLS * start:
        rises = next((rate for rate, loss in zip(rates, losses, strict=True) if loss > RISES * start), rates[-1])
        wanted = max(rises / BELOW_RISE, rates[0])
        return min(rates, key=lambda rate: abs(math.log(rate / wanted))), f"the loss rises at {rises:.1g}"
    return steepest(rates, losses), "there the loss falls fastest"


def steepest(rates: list[float], losses: list[float]) -> float:
    """Return the rate around which the loss falls fastest on its way to the least.

    Lines are fitted to ``SPAN`` losses on either side, since one step says little; the first losses, which are averages
    of few, do not count. Raises ``UsageError`` where the loss does not fall.
    """
    least = int(np.argmin(losses)) if losses else 0
    near = {at: slice(at - SPAN, min(at + SPAN, least) + 1) for at in range(FIRST, least)}
    slopes = {at: np.polyfit(np.log(rates[part]), losses[part], 1)[0] for at, part in near.items()}
    if not slopes or min(slopes.values()) >= 0:
        remedy = "look at the labels and the augmentation, or make train.batch_size larger"
        raise UsageError(f"the loss falls at no rate from {LOWEST:g} to {HIGHEST:g}; {remedy}")
    return float(rates[min(slopes, key=slopes.__getitem__)])
