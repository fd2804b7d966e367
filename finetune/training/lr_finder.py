"""Range test of the learning rate (Smith 2017): a few steps at increasing rates, and their effect on the loss.

If the head starts at random, the loss falls, and the rate at which it falls fastest is a good one. If the head is
fitted, the loss cannot fall much in a few steps: the test finds the rate at which it rises, and a good rate is well
below that. The losses of single batches differ by more than the effect of a rate, so this second test repeats the same
few batches, and compares each loss with that of the same batch before any weight changed.
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
from finetune.training import defaults, fitting, saving
from finetune.training.phases import FITTING
from finetune.training.prepare import prepare
from finetune.training.training_run import TrainingRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from finetune.catalogue import Catalogue
    from finetune.data.loader import Batch
    from finetune.recipe.plan import Plan
    from finetune.training.phase_data import PhaseData
    from finetune.training.phases import Phase
    from finetune.training.trainer import Trainer


LOWEST, HIGHEST = 1e-7, 10.0  # rates for a head that starts at random
STEPS = 100
MEMORY = 0.9  # factor of the moving average that smooths the loss
SPAN, FIRST = 4, 10  # losses on either side that a slope is fitted to; the first losses, which are ignored
DIVERGED = 4.0  # a loss of this many times the least one ends the test

# For a fitted head:
RANGES = {"adamw": (1e-5, 1e-2), "sgd": (1e-4, 0.1)}
BATCHES = 6  # repeated during the test
RISE, LEAST_RISE = 0.25, 0.1  # what counts as a rise: this share of the way to the loss of guessing, and at least this
BELOW_RISE = 10.0  # a good rate is this many times lower than the one at which the loss rises


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The rates, the losses of single steps at each of them, and the losses without the noise of single batches.

    With a fitted head, ``level`` is the loss before any weight changed, and ``rises`` the first rate that clearly
    raised it.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    level: float | None = None
    rises: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTest:
    """The smoothed ``losses`` at each of the ``rates``, and the suggested rate with the reason, ``why``.

    ``stages`` are the stages that trained, ``recipe`` is the rate in the recipe, and ``steps`` the number of optimizer
    steps of a run.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float
    why: str
    stages: tuple[str, ...]
    recipe: float | Literal["auto"]
    steps: int


def find_rate(plan: Plan, catalogue: Catalogue, *, steps: int = STEPS, say: Callable[[str], None] = print) -> RateTest:
    """Test learning rates on the features that a run of the plan would use, without writing a run folder.

    A head that starts fitted is fitted first, and the phase with the most trainable stages is tested; otherwise the
    first phase. Raises ``UsageError`` if the loss does not fall at any rate.
    """
    prepared = prepare(plan, catalogue, say=say)
    with TemporaryDirectory() as folder:
        training = TrainingRun(prepared, Path(folder), say=say, resumed=False)
        try:
            phase = enter_phase(training)
            curve = measure_curve(training, phase, steps)
            per_epoch = training.trainer.steps_per_epoch
        finally:
            training.close()
    suggestion, why = suggest_rate(curve)
    return RateTest(
        rates=curve.rates,
        losses=curve.smooth,
        suggestion=suggestion,
        why=why,
        stages=phase.trainable,
        recipe=plan.recipe.optimizer.lr,
        steps=per_epoch * prepared.plan.recipe.train.length,
    )


def enter_phase(training: TrainingRun) -> Phase:
    """Enter the phase to test, with the head that it would start with; return the phase."""
    planned = training.prepared.phases
    trained = [phase for phase in planned if phase.number]
    if not trained:
        only = replace(FITTING, number=1, first=1, last=1)
        training.run.say("this recipe only fits the head, so no rate is used; testing a head that starts at random")
        training.enter(only)
        return only
    if planned[0] == FITTING:
        training.begin_epoch(0)
        fitting.fit_head(training, lambda: None)
        trained.sort(key=lambda phase: -len(phase.trainable))
    training.enter(trained[0])
    return trained[0]


@contextmanager
def use_bare_rate(training: TrainingRun) -> Iterator[None]:
    """Make the trainer's factor the learning rate inside a block, without rate and schedule of the recipe."""
    recipe = training.recipe
    optimizer = recipe.optimizer.model_copy(update={"lr": 1.0})
    constant = Constant(use="constant", phase_warmup=0.0)
    training.trainer.recipe = recipe.model_copy(update={"optimizer": optimizer, "schedule": constant})
    try:
        yield
    finally:
        training.trainer.recipe = recipe


def measure_curve(training: TrainingRun, phase: Phase, many: int, check: Callable[[], None] = lambda: None) -> Curve:
    """Make ``many`` steps at increasing rates in the current phase of the run; the weights are not restored."""
    accumulate = training.recipe.train.accumulate
    if training.fitted is None:
        each = iterate_batches(training.phase_data, phase, accumulate, check)
        with use_bare_rate(training):
            rates, losses = step_through(training.trainer, each, np.geomspace(LOWEST, HIGHEST, many), has_diverged)
        return Curve(rates=tuple(rates), losses=tuple(losses), smooth=tuple(smooth_losses(losses)))
    number, classes = min(BATCHES, training.trainer.steps_per_epoch), len(training.data.classes)
    each = iterate_batches(training.phase_data, phase, accumulate, check, number)
    spread = np.geomspace(*RANGES[training.recipe.optimizer.use], many)
    with use_bare_rate(training):
        rates, losses = step_through(
            training.trainer,
            each,
            [*np.zeros(number), *spread],
            lambda losses: compare_losses(spread.tolist(), losses, number, classes).rises is not None,
        )
    return compare_losses(rates[number:], losses, number, classes)


def has_diverged(losses: Sequence[float]) -> bool:
    """Return whether the smoothed loss is far above the least one so far."""
    smooth = smooth_losses(losses)
    return smooth[-1] > DIVERGED * min(smooth)


def compare_losses(rates: Sequence[float], losses: Sequence[float], batches: int, classes: int) -> Curve:
    """Return the curve of a fitted head, from losses of ``batches`` in rotation; the first round has a rate of 0."""
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
        # The last median is that of only two losses, too few to be reliable.
        rises=next((rate for rate, loss in zip(rates, middle[:-1], strict=False) if loss > rise), None),
    )


def iterate_batches(
    phase_data: PhaseData, phase: Phase, accumulate: int, check: Callable[[], None], same: int | None = None
) -> Iterator[tuple[int, int, list[Batch]]]:
    """Yield epoch, number and batches of each step, repeating the phase's epochs forever.

    With ``same``, only that many steps of the first epoch are repeated.
    """
    for turn in count():
        epoch = phase.first + (0 if same else turn % (phase.last - phase.first + 1))
        with closing(phase_data.iterate_training(epoch, 0, check)) as each:  # type: ignore[type-var]
            for number in range(same) if same else count():
                with phase_data.world.collective():
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

    The test ends when the loss is not finite, or when ``ends`` of the losses is True.
    """
    made: list[float] = []
    losses: list[float] = []
    for rate, (epoch, number, group) in zip(map(float, rates), steps, strict=False):
        trainer.slower = rate
        try:
            loss = trainer.step(group, epoch, number)
        except DivergedError:  # in mixed precision, no loss scale was small enough
            break
        if not math.isfinite(loss):
            break
        made.append(rate)
        losses.append(loss)
        if ends(losses):
            break
    return made, losses


def smooth_losses(losses: Sequence[float]) -> list[float]:
    """Return a moving average, corrected for the bias of its start."""
    found, mean = [], 0.0
    for number, loss in enumerate(losses, 1):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        found.append(mean / (1 - MEMORY**number))
    return found


def suggest_rate(curve: Curve) -> tuple[float, str]:
    """Return a rate with two digits, and the reason.

    It is the rate at which the loss falls fastest or, for a fitted head, ``BELOW_RISE`` times below the rate at which
    it rises. Raises ``UsageError`` if the head is not fitted and the loss does not fall.
    """
    if curve.level is None:
        return round_rate(find_steepest(curve.rates, curve.smooth)), "the loss falls fastest at this rate"
    if not curve.rates:
        raise UsageError("the loss is not finite at any rate; check the images and the weights")
    highest = curve.rates[-1]
    if curve.rises is None:
        return round_rate(highest / BELOW_RISE), f"the loss of the fitted network does not rise up to {highest:.1g}"
    return round_rate(curve.rises / BELOW_RISE), f"the loss of the fitted network rises at {curve.rises:.1g}"


def round_rate(rate: float) -> float:
    return float(f"{rate:.2g}")


def find_steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate at which the loss falls fastest before its minimum.

    Lines are fitted to ``SPAN`` losses on either side, since single steps are noisy; the first losses, which are
    averages of few, are ignored. Raises ``UsageError`` if the loss does not fall.
    """
    least = int(np.argmin(losses)) if losses else 0
    near = {at: slice(at - SPAN, min(at + SPAN, least) + 1) for at in range(FIRST, least)}
    slopes = {at: np.polyfit(np.log(rates[part]), losses[part], 1)[0] for at, part in near.items()}
    if not slopes or min(slopes.values()) >= 0:
        remedy = "check the labels and the augmentation, or increase train.batch_size"
        raise UsageError(f"the loss does not fall at any rate from {LOWEST:g} to {HIGHEST:g}; {remedy}")
    return float(rates[min(slopes, key=slopes.__getitem__)])


STEPS_IN_RUN, SHARE = (24, 48), 0.05  # fewest and most steps, and their share of all steps in between
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
        curve = measure_curve(training, widest, count_steps(training), check)
    rate, why = choose_rate(curve, training.recipe.optimizer.use)
    rate, why = training.world.broadcast([rate, why])
    training.settle("optimizer", lr=rate)
    training.run.say(f"optimizer.lr=auto chose {rate:.2g}: {why}")
    if widest != current:
        training.enter(current)


def count_steps(training: TrainingRun) -> int:
    """Return the number of rates to test: a small share of the run's steps, but enough for a useful curve."""
    fewest, most = STEPS_IN_RUN
    if training.fitted is None:  # a falling curve needs more points than a rising one
        return most
    return min(most, max(fewest, round(SHARE * training.trainer.steps_per_epoch * training.epochs)))


def choose_rate(curve: Curve, optimizer: str) -> tuple[float, str]:
    """Return the rate of a curve, limited for pretrained stages, or a fallback rate; and the reason."""
    most = defaults.RATES[optimizer]
    try:
        rate, why = suggest_rate(curve)
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
