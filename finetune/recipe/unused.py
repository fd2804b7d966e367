"""Options of the engine's own sections that are right by themselves and can have no effect in a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.components import Finding
from finetune.recipe.checks import Found, longest
from finetune.recipe.models import Cosine, StepDecay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finetune.recipe.models import Recipe


def findings(recipe: Recipe) -> Iterator[Found]:
    """Yield a note for each option that changes nothing."""
    for section, key, text in (*_of_schedule(recipe), *_of_the_rest(recipe)):
        yield Found((section, key), Finding(severity="note", subject=key, text=text))


def _of_schedule(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    schedule, epochs = recipe.schedule, longest(recipe).train.length
    if 0 < epochs == schedule.warmup_epochs:
        text = f"the learning rate rises until the end of the run; lower it, or raise train.epochs, which is {epochs}"
        yield "schedule", "warmup_epochs", text
    if isinstance(schedule, StepDecay) and 0 < epochs <= schedule.every:
        text = f"no drop within {epochs} epoch{'s' * (epochs > 1)}; lower it, or raise train.epochs"
        yield "schedule", "every", text
    if isinstance(schedule, StepDecay) and schedule.gamma == 1:
        yield "schedule", "gamma", "a drop that leaves everything changes nothing; lower it, or write use: constant"
    if isinstance(schedule, Cosine) and schedule.final == 1:
        yield "schedule", "final", "the learning rate stays as it is; lower it, or write use: constant"


def _of_the_rest(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    epochs, runner = longest(recipe).train.length, recipe.runner
    if epochs > 1 and recipe.evaluate.every > epochs:
        text = f"only the last of {epochs} epochs is evaluated, so it is always the best; lower it to compare epochs"
        yield "evaluate", "every", text
    if recipe.train.sync_batch_norm and runner.devices == 1 and runner.nodes in (1, "auto"):
        yield "train", "sync_batch_norm", "no effect on a single device; raise runner.devices, or take it out"
    if recipe.cache.features == "off" and "views" in recipe.cache.model_fields_set and recipe.cache.views > 1:
        yield "cache", "views", "no effect, because cache.features is off; take one of them out"
