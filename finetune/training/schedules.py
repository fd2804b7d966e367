"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math

from finetune.recipe.models import Constant, Cosine, StepDecay


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
