"""A range test of the learning rate (Smith 2017): short steps at ever higher rates, and what they do to the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np

from finetune.data import targets
from finetune.errors import DivergedError, UsageError
from finetune.recipe.models import Constant
from finetune.training.feed import Feed
from finetune.training.prepare import prepare
from finetune.training.trainer import Trainer
from finetune.trunk import division

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from finetune.catalogue import Catalogue
    from finetune.data.loader import Batch
    from finetune.recipe.plan import Plan
    from finetune.training.phases import Phase

LOWEST, HIGHEST = 1e-7, 10.0
STEPS = 100
MEMORY = 0.9  # of the moving average that smooths the loss
SPAN, FIRST = 4, 10  # losses on either side of a slope, and that do not count
DIVERGED = 4.0  # times the least loss so far ends the test


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The smoothed ``losses`` at each of the ``rates``, and the rate that is suggested.

    ``stages`` are those that trained, and ``recipe`` is the rate that the recipe has.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float
    stages: tuple[str, ...]
    recipe: float


def find(plan: Plan, catalogue: Catalogue, *, steps: int = STEPS, say: Callable[[str], None] = print) -> Found:
    """Test rates in the first phase of a plan, on the features that its run would use, and write no run folder.

    Raises ``UsageError`` where the loss falls at no rate.
    """
    prepared = prepare(plan, catalogue, say=say)
    phase = prepared.phases[0]
    recipe = prepared.plan.recipe.model_copy(
        update={
            "schedule": Constant(use="constant"),
            "optimizer": plan.recipe.optimizer.model_copy(update={"lr": 1.0}),
        }
    )
    trainer = Trainer(
        recipe,
        prepared.network,
        features=plan.backbone.component.features,
        images=len(prepared.data.train),
        amp=prepared.device.amp,
    )
    weights = targets.class_weights(recipe.loss.class_weights, prepared.data.train.labels, prepared.data.classes)
    feed = Feed(prepared, weights, say)
    first = len(division.trunk(prepared.network.names, phase.trainable))
    trainer.enter(phase, first, prepared.products)
    feed.enter(first, epochs=range(phase.first, phase.last + 1), last=False)
    try:
        rates, losses = tested(trainer, batches(feed, phase, recipe.train.accumulate), steps)
    finally:
        feed.close()
    smooth = smoothed(losses)
    return Found(
        rates=tuple(rates),
        losses=tuple(smooth),
        suggestion=steepest(rates, smooth),
        stages=phase.trainable,
        recipe=plan.recipe.optimizer.lr,
    )


def batches(feed: Feed, phase: Phase, accumulate: int) -> Iterator[tuple[int, int, list[Batch]]]:
    """Yield epoch, number and batches of one step after another, going through the phase's epochs for ever."""
    for turn in count():
        epoch = phase.first + turn % (phase.last - phase.first + 1)
        each = feed.training(epoch, 0, lambda: None)
        for number in count():
            group = list(islice(each, accumulate))
            if not group:
                break
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
