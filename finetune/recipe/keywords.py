"""Sections of a recipe as keywords of a Python call: short forms, and which of several words counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from finetune.recipe.mistakes import models_in
from finetune.recipe.models import Recipe
from finetune.recipe.parts import SLOTS, section
from finetune.recipe.places import spelled

Sections = dict[str, Any]


def spelled_out(said: Mapping[str, Any]) -> Sections:
    """Return sections with short forms spelled out: ``"sgd"`` is ``{"use": "sgd"}`` where a section selects."""
    return {name: _long(name, value) if _selects(name) else value for name, value in said.items()}


def _selects(name: str) -> bool:
    field = Recipe.model_fields.get(name)
    return field is not None and any("use" in model.model_fields for model in models_in(field.annotation))


def _long(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [{"use": item} if isinstance(item, str) else item for item in value]
    if not isinstance(value, str):
        return value
    return [{"use": value}] if isinstance(Recipe.model_fields[name].default, tuple) else {"use": value}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Sections:
    """Return ``base`` with what ``over`` says, key by key; as in overrides, another ``use`` leaves options behind."""
    result = dict(base)
    for name, value in over.items():
        before = result.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[name] = {**_left(name, before, value), **value} if both else value  # type: ignore[arg-type]
    return result


def _left(name: str, before: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is left of a section before ``value`` changes it."""
    field = Recipe.model_fields.get(name)
    usual = getattr(field.default, "use", None) if field else None
    if "use" not in value or value["use"] == before.get("use", usual):
        return before
    kept = section(name).model_fields if name in SLOTS else ()
    return {key: item for key, item in before.items() if key in kept}


def overrides(said: Mapping[str, Any]) -> list[str]:
    """Return sections as overrides of a recipe file."""
    pairs: list[tuple[str, Any]] = []
    for name, value in said.items():
        if isinstance(value, Mapping):
            pairs += [(spelled((name, str(key))), item) for key, item in value.items()]
        else:
            pairs.append((spelled((name,)), value))
    return [f"{path}={json.dumps(value, default=_plain)}" for path, value in pairs]


def _plain(value: Any) -> Any:
    """Return a number of NumPy's as Python's, and a path as text."""
    return value.item() if hasattr(value, "item") else str(value)
