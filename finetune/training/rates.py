"""A range test of the learning rate (Smith 2017): short steps at ever higher rates, and what they do to the loss.

Where the head starts at random, the loss falls, and the rate at which it falls fastest is a good one. Where the head
is fitted, the loss of a few steps has nowhere to fall to: what shows is the rate at which it rises, and a good one is
well below that. Single batches differ by more than a rate changes them, so that test goes through the same few batches
again and again, and compares each loss with that of the same batch before any weight changed.
"""

from __future__ import annotations

import math
from contextlib import closing, contextmanager
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
from finetune.training.training_run import TrainingRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from finetune.catalogue import Catalogue
    from finetune.data.loader import Batch
    from finetune.recipe.plan import Plan
    from finetune.training.feed import Feed
    from finetune.training.phases import Phase
    from finetune.training.trainer import Trainer

LOWEST, HIGHEST = 1e-7, 10.0  # rates for a head that starts at random
STEPS = 100
MEMORY = 0.9  # of the moving average that smooths the loss
SPAN, FIRST = 4, 10  # losses on either side of a slope, and that do not count
DIVERGED = 4.0  # times the least loss so far ends the test

# For a head that is fitted:
RANGES = {"adamw": (1e-5, 1e-2), "sgd": (1e-4, 0.1)}
BATCHES = 6  # that are gone through again and again
RISE, LEAST_RISE = 0.25, 0.1  # a rise: this share of the way to the loss of guessing, and at least this much
BELOW_RISE = 10.0  # times lower than the rate at which the loss rises is one that trains well


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The losses of single steps at each of the rates, and what they are without the noise of single batches.

    Where the head is fitted, ``level`` is the loss before any weight changed, and ``rises`` the first rate that
    clearly raised it.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    level: float | None = None
    rises: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The smoothed ``losses`` at each of the ``rates``, and the rate that is suggested.

    ``stages`` are those that trained, and ``recipe`` is the rate that the recipe has; ``why`` the rate is suggested.
    ``steps`` is how many optimizer steps the recipe makes.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float
    why: str
    stages: tuple[str, ...]
    recipe: float | Literal["auto"]
    steps: int


def find(plan: Plan, catalogue: Catalogue, *, steps: int = STEPS, say: Callable[[str], None] = print) -> Found:
    """Test rates on the features that a run of the plan would use, and write no run folder.

    A head that starts fitted is fitted first; then the phase that trains most is tested, else the first one. Raises
    ``UsageError`` where the loss falls at no rate.
    """
    prepared = prepare(plan, catalogue, say=say)
    with TemporaryDirectory() as folder:
        training = TrainingRun(prepared, Path(folder), say=say, resumed=False)
        try:
            phase = begin(training)
            curve = measure(training, phase, steps)
            per_epoch = training.trainer.steps_per_epoch
        finally:
            training.close()
    suggestion, why = suggest(curve)
    return Found(
        rates=curve.rates,
        losses=curve.smooth,
        suggestion=suggestion,
        why=why,
        stages=phase.trainable,
        recipe=plan.recipe.optimizer.lr,
        steps=per_epoch * prepared.plan.recipe.train.length,
    )


def begin(training: TrainingRun) -> Phase:
    """Enter the phase that is to be tested, with the head that it would begin with; return it."""
    planned = training.prepared.phases
    trained = [phase for phase in planned if phase.number]
    if not trained:
        only = replace(FITTING, number=1, first=1, last=1)
        training.run.say("this recipe only fits the head, by no learning rate; tested is a head that starts at random")
        training.enter(only)
        return only
    if planned[0] == FITTING:
        training.begin_epoch(0)
        fitting.fit_head(training, lambda: None)
        trained.sort(key=lambda phase: -len(phase.trainable))
    training.enter(trained[0])
    return trained[0]


@contextmanager
def bare_rate(training: TrainingRun) -> Iterator[None]:
    """Let the trainer's factor alone be the learning rate for the length of a block."""
    recipe = training.recipe
    optimizer = recipe.optimizer.model_copy(update={"lr": 1.0})
    constant = Constant(use="constant", phase_warmup=0.0)
    training.trainer.recipe = recipe.model_copy(update={"optimizer": optimizer, "schedule": constant})
    try:
        yield
    finally:
        training.trainer.recipe = recipe


def measure(training: TrainingRun, phase: Phase, many: int, check: Callable[[], None] = lambda: None) -> Curve:
    """Make ``many`` steps at ever higher rates in a phase that the run has entered; the weights are spoiled."""
    accumulate = training.recipe.train.accumulate
    if training.fitted is None:
        each = iterate_batches(training.feed, phase, accumulate, check)
        with bare_rate(training):
            rates, losses = step_through(training.trainer, each, np.geomspace(LOWEST, HIGHEST, many), has_diverged)
        return Curve(rates=tuple(rates), losses=tuple(losses), smooth=tuple(smooth_mean(losses)))
    number, classes = min(BATCHES, training.trainer.steps_per_epoch), len(training.data.classes)
    each = iterate_batches(training.feed, phase, accumulate, check, number)
    spread = np.geomspace(*RANGES[training.recipe.optimizer.use], many)
    with bare_rate(training):
        rates, losses = step_through(
            training.trainer,
            each,
            [*np.zeros(number), *spread],
            lambda losses: compare(spread.tolist(), losses, number, classes).rises is not None,
        )
    return compare(rates[number:], losses, number, classes)


def has_diverged(losses: Sequence[float]) -> bool:
    """Tell whether the smoothed loss is far above the least so far."""
    smooth = smooth_mean(losses)
    return smooth[-1] > DIVERGED * min(smooth)


def compare(rates: Sequence[float], losses: Sequence[float], batches: int, classes: int) -> Curve:
    """Return the curve of a fitted head, from losses of ``batches`` in turn, the first of which are at a rate of 0."""
    before, after = np.array(losses[:batches]), np.array(losses[batches:])
    level = float(before.mean())
    relative = after - before[np.arange(len(after)) % batches]
    middle = [float(np.median(relative[max(0, at - 1) : at + 2])) for at in range(len(relative))]
    rise = max(LEAST_RISE, RISE * (math.log(max(classes, 2)) - level))
    return Curve(
        rates=tuple(rates[: len(after)]),
        losses=tuple(losses[batches:]),
        smooth=tuple(max(0.0, level + each) for each in middle),
        level=level,
        # The last median is one of two losses, too few to trust.
        rises=next((rate for rate, loss in zip(rates, middle[:-1], strict=False) if loss > rise), None),
    )


def iterate_batches(
    feed: Feed, phase: Phase, accumulate: int, check: Callable[[], None], same: int | None = None
) -> Iterator[tuple[int, int, list[Batch]]]:
    """Yield epoch, number and batches of one step after another, going through the phase's epochs for ever.

    With ``same``, these are the first so many steps of its first epoch, again and again.
    """
    for turn in count():
        epoch = phase.first + (0 if same else turn % (phase.last - phase.first + 1))
        with closing(feed.training(epoch, 0, check)) as each:  # type: ignore[type-var]
            for number in range(same) if same else count():
                with feed.world.together():
                    check()
                    group = list(islice(each, accumulate))
                if not group:
                    break
                yield epoch, number, group


def step_through(
    trainer: Trainer,
    steps: Iterator[tuple[int, int, list[Batch]]],
    rates: Iterable[float],
    ends: Callable[[Sequence[float]], bool],
) -> tuple[list[float], list[float]]:
    """Make a step at each rate; return the rates, and the losses before each step.

    The test ends where the loss is not finite, or where ``ends`` says so of the losses.
    """
    made: list[float] = []
    losses: list[float] = []
    for rate, (epoch, number, group) in zip(map(float, rates), steps, strict=False):
        trainer.slower = rate
        try:
            loss = trainer.step(group, epoch, number)
        except DivergedError:  # in mixed precision no scale of the loss was small enough
            break
        if not math.isfinite(loss):
            break
        made.append(rate)
        losses.append(loss)
        if ends(losses):
            break
    return made, losses


def smooth_mean(losses: Sequence[float]) -> list[float]:
    """Return a moving average, which begins without the bias of its first value."""
    found, mean = [], 0.0
    for number, loss in enumerate(losses, 1):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        found.append(mean / (1 - MEMORY**number))
    return found


def suggest(curve: Curve) -> tuple[float, str]:
    """Return a rate of two digits, and why.

    That is where the loss falls fastest or, for a head that is fitted, ``BELOW_RISE`` times below where it rises.
    Raises ``UsageError`` where the head is not fitted and the loss does not fall.
    """
    if curve.level is None:
        return round_rate(steepest(curve.rates, curve.smooth)), "there the loss falls fastest"
    if not curve.rates:
        raise UsageError("the loss is not finite at any rate; look at the images and at the weights")
    highest = curve.rates[-1]
    if curve.rises is None:
        return round_rate(highest / BELOW_RISE), f"the loss of the fitted network does not rise up to {highest:.1g}"
    return round_rate(curve.rises / BELOW_RISE), f"the loss of the fitted network rises at {curve.rises:.1g}"


def round_rate(rate: float) -> float:
    """Return a rate of two digits."""
    return float(f"{rate:.2g}")


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
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
