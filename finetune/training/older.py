"""Records of older versions: what the keys that they lack meant, and which values were still open."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError
from finetune.model.modelfolder import completed_image
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
"""What the keys that a complete recipe of an earlier version lacks meant there."""

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
"""The keys that a run settles, and how a recipe leaves them open."""


def keep_defaults(plan: Plan, folder: Path | None) -> Plan:
    """Return the plan with which the run in a folder is resumed.

    What the complete recipe of an earlier version does not say continues as it was there, unless the plan itself says
    it. Without a folder the plan stays as it is.
    """
    if folder is None:
        return plan
    recorded = _recorded(folder)
    for (section, key), value in EARLIER.items():
        own = getattr(plan.recipe, section)
        there = recorded.get(section)
        lacks = section == "validate" if there is None else isinstance(there, Mapping) and key not in there
        if recorded and lacks and key in type(own).model_fields and key not in own.model_fields_set:
            plan = defaults.changed(plan, section, **{key: value})
    return plan


def keep_settled(plan: Plan, folder: Path) -> Plan:
    """Return a plan that leaves nothing open which the run in a folder has settled."""
    recorded = _recorded(folder)
    for (section, key), value in OPEN.items():
        own, there = getattr(plan.recipe, section), recorded.get(section)
        if isinstance(there, Mapping) and there.get(key, value) != value and getattr(own, key, None) == value:
            plan = defaults.changed(plan, section, **{key: there[key]})
    suited = defaults.suit_head(plan)
    same = [each.model_dump(mode="json", by_alias=True) for each in suited.recipe.augment] == recorded.get("augment")
    return suited if same else plan


def _recorded(folder: Path) -> Mapping[str, Any]:
    """Return what the complete recipe in a run's folder says; nothing where it cannot be read, which others report."""
    from finetune.recipe.document import read_recipe

    try:
        values = read_recipe(folder / "recipe.yaml").values
    except (FinetuneError, OSError):
        return {}
    return values if isinstance(values, Mapping) else {}


def completed(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's state with what older versions did not write."""
    found = deepcopy({key: state[key] for key in ("recipe", "start") if key in state})
    for section in found.values():
        if isinstance(section.get("image"), Mapping):
            section["image"] = completed_image(section["image"])
    if "recipe" in found:
        _complete(found["recipe"])
    return {**state, **found}


def _complete(recipe: dict[str, Any]) -> None:
    """Give a recorded recipe the keys that earlier versions did not write."""
    for (section, key), value in EARLIER.items():
        own = recipe.setdefault(section, {})
        if section != "head" or own.get("use") == "linear":
            own.setdefault(key, value)
