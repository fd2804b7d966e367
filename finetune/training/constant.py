"""Options that have no effect on a dataset: metrics that cannot change, intervals longer than the run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from finetune.components import Callback, Finding, RunFacts
from finetune.errors import UsageError
from finetune.model.metrics import list_constant_metrics
from finetune.recipe.parts import assume_longest
from finetune.recipe.places import format_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from finetune.catalogue import Chosen
    from finetune.data.loading import Data
    from finetune.recipe.models import Recipe
    from finetune.recipe.plan import Plan


def check_options(plan: Plan, data: Data, say: Callable[[str], None], asked: Recipe) -> None:
    """Report options of a plan that have no effect on the data; raises ``UsageError`` if the run depends on them.

    ``asked`` is the recipe before ``auto`` values were chosen by the data.
    """
    found = [*_check_metric(plan, data), *_check_callbacks(plan, data, asked)]
    errors = [f"{finding.subject}: {finding.text}" for finding in found if finding.severity == "error"]
    if errors:
        raise UsageError("\n".join(errors))
    for finding in found:
        say(f"{'warning: ' if finding.severity == 'warning' else ''}{finding.subject}: {finding.text}")


def collect_facts(plan: Plan, data: Data) -> RunFacts:
    """Return the facts about a run on the data, for callbacks to check their options."""
    train, classes = plan.recipe.train, len(data.classes)
    steps = None
    if train.batch_size != "auto":
        steps = train.length * math.ceil(len(data.train) / (train.batch_size * train.accumulate))
    return RunFacts(recipe=plan.recipe, classes=classes, steps=steps, constant=list_constant_metrics(classes))


def _check_metric(plan: Plan, data: Data) -> Iterator[Finding]:
    """Yield findings about the metric that selects the best epoch."""
    metric, constant = plan.recipe.evaluate.metric, list_constant_metrics(len(data.classes))
    if metric in constant:
        value, count = constant[metric], len(data.classes)
        text = f"{metric} is always {value:g} with {count} classes; set accuracy, macro_f1 or loss"
        yield Finding(severity="error", subject="evaluate.metric", text=text)
    present = [] if data.valid is None else np.unique(data.valid.labels).tolist()
    if len(present) == 1 and len(data.classes) > 1:
        text = f"all validation images are of the class '{data.classes[present[0]]}', so val_{metric} does not "
        text += "measure the other classes; add validation images of each class"
        yield Finding(severity="warning", subject="evaluate.metric", text=text)


def _check_callbacks(plan: Plan, data: Data, asked: Recipe) -> Iterator[Finding]:
    """Yield the findings of callbacks about their options that they did not have before the data was known."""
    before, now = RunFacts(recipe=assume_longest(asked)), collect_facts(plan, data)
    for index, chosen in enumerate(plan.callbacks):
        known = _run_check(chosen, before)
        for finding in _run_check(chosen, now):
            if finding not in known:
                subject = f"{format_path(('callbacks', index))}{f'.{finding.subject}' if finding.subject else ''}"
                yield Finding(severity=finding.severity, subject=subject, text=finding.text)


def _run_check(chosen: Chosen[Callback], about: RunFacts) -> list[Finding]:
    check = chosen.component.check
    if check is None:
        return []
    with chosen.attribute("check"):
        return list(check(chosen.options, about))
