"""Comparison of the runs of a sweep: all of them are judged on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.training import defaults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from finetune.catalogue import Catalogue
    from finetune.recipe.plan import Plan


def judge_alike(plans: Sequence[Plan], catalogue: Catalogue, say: Callable[[str], None]) -> list[Plan]:
    """Return plans that all hold images back if one of them has to.

    Left to itself, a run that only fits the head would be judged out of fold, on other images than the rest.
    """
    from finetune.training.prepare import plan_phases

    open_ones = [plan for plan in plans if plan.recipe.validate.folds == "auto"]
    settled = [
        defaults.settle_start(plan, plan_phases(plan, catalogue), lambda message: None).recipe.validate.folds
        for plan in open_ones
    ]
    if "off" not in settled or {*settled} == {"off"}:
        return list(plans)
    say("validate.folds=auto chose off for every run: all of them are judged on the same images")
    return [
        defaults.changed(plan, "validate", folds="off") if plan.recipe.validate.folds == "auto" else plan
        for plan in plans
    ]
