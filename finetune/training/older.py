"""Older runs: fills in what their records lack, so that a resumed run continues as it began."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError
from finetune.model.modelfolder import completed_image

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.recipe.plan import Plan


def keep_defaults(plan: Plan, folder: Path | None) -> Plan:
    """Return the plan with which the run in a folder is resumed.

    A run of a version that ignored colour profiles continues to ignore them, unless the plan itself says
    ``image.color``. Without a folder the plan stays as it is.
    """
    image = plan.recipe.image
    if folder is None or "color" in image.model_fields_set or _says_color(folder):
        return plan
    older = image.model_copy(update={"color": "ignore"})
    return replace(plan, recipe=plan.recipe.model_copy(update={"image": older}))


def _says_color(folder: Path) -> bool:
    """Tell whether the complete recipe in a run's folder says what becomes of colour profiles."""
    from finetune.recipe.document import read

    try:
        values = read(folder / "recipe.yaml").values
    except (FinetuneError, OSError):  # reported where the folder itself is looked at
        return True
    image = values.get("image") if isinstance(values, Mapping) else None
    return not isinstance(image, Mapping) or "color" in image


def completed(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's state with what older versions did not write."""
    found = deepcopy({key: state[key] for key in ("recipe", "start") if key in state})
    for section in found.values():
        if isinstance(section.get("image"), Mapping):
            section["image"] = completed_image(section["image"])
    return {**state, **found}
