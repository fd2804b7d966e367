"""Records of older versions: the defaults of keys that they lack, and values that were not chosen yet."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError
from finetune.model.modelfolder import complete_image
from finetune.recipe.document import rename_values
from finetune.training import defaults

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.recipe.plan import Plan


EARLIER: dict[tuple[str, str], Any] = {
    ("image", "color"): "ignore",
    ("head", "start"): "random",
    ("head", "views"): 0,
    ("schedule", "phase_warmup"): 0.0,
    ("validate", "folds"): "off",
}
"""The values of keys that complete recipes of earlier versions lack."""

OPEN = {
    ("dataset", "split"): "auto",
    ("freeze", "batch_norm"): "auto",
    ("head", "start"): "auto",
    ("head", "views"): "auto",
    ("loss", "class_weights"): "measured",
    ("optimizer", "lr"): "auto",
    ("train", "epochs"): "auto",
    ("train", "batch_size"): "auto",
    ("validate", "folds"): "auto",
    ("evaluate", "metric"): "auto",
}
"""The keys whose values a run chooses, and the value with which a recipe leaves that to the run."""


def keep_defaults(plan: Plan, folder: Path | None) -> Plan:
    """Return the plan with which the run in a folder is resumed.

    Keys that are missing in the recipe of an earlier version keep the defaults of that version, unless the plan sets
    them. Without a folder the plan is returned unchanged.
    """
    if folder is None:
        return plan
    recorded = _read_recipe(folder)
    for (section, key), value in EARLIER.items():
        own = getattr(plan.recipe, section)
        there = recorded.get(section)
        lacks = section == "validate" if there is None else isinstance(there, Mapping) and key not in there
        if recorded and lacks and key in type(own).model_fields and key not in own.model_fields_set:
            plan = defaults.replace_values(plan, section, **{key: value})
    return plan


def keep_settled(plan: Plan, folder: Path) -> Plan:
    """Return a plan with the values that the run in a folder has chosen."""
    recorded = _read_recipe(folder)
    for (section, key), value in OPEN.items():
        own, there = getattr(plan.recipe, section), recorded.get(section)
        if isinstance(there, Mapping) and there.get(key, value) != value and getattr(own, key, None) == value:
            plan = defaults.replace_values(plan, section, **{key: there[key]})
    suited = defaults.suit_head(plan)
    same = [each.model_dump(mode="json", by_alias=True) for each in suited.recipe.augment] == recorded.get("augment")
    return suited if same else plan


def _read_recipe(folder: Path) -> Mapping[str, Any]:
    """Read the complete recipe in a run's folder; empty if it cannot be read, which is reported elsewhere."""
    from finetune.recipe.document import read_recipe

    try:
        values = read_recipe(folder / "recipe.yaml").values
    except (FinetuneError, OSError):
        return {}
    return values if isinstance(values, Mapping) else {}


def complete_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Add the keys to a checkpoint's state that older versions did not write."""
    found = deepcopy({key: state[key] for key in ("recipe", "start") if key in state})
    for section in found.values():
        if isinstance(section.get("image"), Mapping):
            section["image"] = complete_image(section["image"])
    if "recipe" in found:
        found["recipe"] = rename_values(found["recipe"])
        _complete_recipe(found["recipe"])
    return {**state, **found}


def _complete_recipe(recipe: dict[str, Any]) -> None:
    """Add the keys to a recorded recipe that earlier versions did not write."""
    for (section, key), value in EARLIER.items():
        own = recipe.setdefault(section, {})
        if section != "head" or own.get("use") == "linear":
            own.setdefault(key, value)
