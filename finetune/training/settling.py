"""Settled values: what a recipe left open, once a run has chosen it, and when that is written down.

A settled value is in a checkpoint before it is in the run's ``recipe.yaml``. A run that is killed at any moment
therefore resumes with the same choice, or makes it again from the same state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune.machine import environment
from finetune.recipe import masking
from finetune.recipe import plan as plans
from finetune.training import defaults, older, records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from finetune.training.session import Session


def settle(session: Session, section: str, **values: Any) -> None:
    """Set values of the recipe that were open; ``save`` writes them down."""
    session.prepared = replace(session.prepared, plan=defaults.changed(session.prepared.plan, section, **values))
    session.recipe = session.trainer.recipe = session.prepared.plan.recipe
    session.feed.take(session.prepared, session.class_weights())
    session.run.recipe = masking.without_secrets(session.recipe)
    session.run.recipe_text = environment.masked(plans.dump(session.prepared.plan))
    session.unwritten = True


def save(session: Session) -> None:
    """Write a checkpoint and then the recipe, if a value was settled since the last time."""
    if session.unwritten:
        session.begin_to_save()
        session.saver.join()
        session.tell()
        write(session)


def write(session: Session) -> None:
    """Write the recipe, if a value was settled since the last time."""
    if session.unwritten and session.world.first:
        records.write_recipe(session.prepared, session.run.folder)
    session.unwritten = False


def adopt(session: Session, recorded: Mapping[str, Any]) -> None:
    """Take what the ``recorded`` recipe of a checkpoint has settled and the session's recipe still leaves open."""
    for (section, key), value in older.OPEN.items():
        own, then = getattr(session.recipe, section), recorded.get(section, {})
        if getattr(own, key, None) == value and then.get(key, value) != value:
            settle(session, section, **{key: then[key]})
    write(session)
