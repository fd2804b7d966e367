"""What a recipe leaves open and a run settles by measuring: put into the run and written into its recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune.machine import environment
from finetune.recipe import plan as plans
from finetune.training import defaults, masking, records

if TYPE_CHECKING:
    from finetune.training.session import Session


def settle(session: Session, section: str, **values: Any) -> None:
    """Give a section of the run's recipe values that were left open until now, and write the recipe."""
    plan = defaults.changed(session.prepared.plan, section, **values)
    session.prepared = replace(session.prepared, plan=plan)
    session.recipe = session.trainer.recipe = plan.recipe
    session.feed.take(session.prepared, session.class_weights())
    session.run.recipe = masking.without_secrets(plan.recipe)
    session.run.recipe_text = environment.masked(plans.dump(plan))
    if session.world.first:
        records.write_recipe(session.prepared, session.run.folder)
