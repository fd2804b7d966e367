"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from finetune.recipe.models import Constant, Cosine, StepDecay

if TYPE_CHECKING:
    from finetune.training.phases import Phase


def factor(section: Cosine | StepDecay | Constant, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the factor on the learning rate at optimizer step ``step``, counted from 0 over the whole run.

    Warm-up rises linearly and reaches 1 at its last step. The cosine is SGDR's (Loshchilov and Hutter 2017) without
    restarts.
    """
    warmup = round(section.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if isinstance(section, Cosine):
        progress = (step - warmup) / max(1, epochs * steps_per_epoch - warmup)
        return section.final + (1.0 - section.final) * 0.5 * (1.0 + math.cos(math.pi * progress))
    if isinstance(section, StepDecay):
        return section.gamma ** (step // (section.every * steps_per_epoch))
    return 1.0


def phase_factor(section: Cosine | StepDecay | Constant, phase: Phase | None, step: int, steps_per_epoch: int) -> float:
    """Return the factor at a step of the run for the warm-up of its phase, 1 where only the head trains."""
    if phase is None or phase.trainable == ("head",):
        return 1.0
    first, steps = (phase.first - 1) * steps_per_epoch, (phase.last - phase.first + 1) * steps_per_epoch
    warmup = round(section.phase_warmup * steps)
    return min(1.0, (step - first + 1) / warmup) if step >= first and warmup else 1.0
