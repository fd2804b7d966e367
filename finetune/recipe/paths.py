"""Making the paths of a recipe absolute."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from finetune.files.home import expand_home
from finetune.recipe.places import KeyPath

M = TypeVar("M", bound=BaseModel)
Absolute = Callable[[Path, KeyPath], Path]

_WEIGHTS = (".safetensors", ".ckpt", ".pth", ".md")


def absolute(path: str | Path, folder: Path) -> Path:
    """Return ``path`` below ``folder`` with ``~`` and ``..`` worked out; ``UsageError`` if there is no such home."""
    return Path(os.path.normpath(folder / expand_home(path, folder)))


def is_weights_file(text: str) -> bool:
    """Return whether ``backbone.weights`` is a file rather than a name or a URL."""
    separators = {"/", os.sep, os.altsep or "/"}
    return "://" not in text and (text.endswith(_WEIGHTS) or any(separator in text for separator in separators))


def resolved(model: M, path: KeyPath, change: Absolute) -> M:
    """Return ``model`` with ``change(path, its key path)`` in place of every path in its fields, however deep."""
    changed = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        new = _changed(value, (*path, field.alias or name), change)
        if new is not value:
            changed[name] = new
    return model.model_copy(update=changed) if changed else model


def _changed(value: Any, path: KeyPath, change: Absolute) -> Any:
    if isinstance(value, Path):
        return change(value, path)
    if isinstance(value, BaseModel):
        return resolved(value, path, change)
    if isinstance(value, dict):
        return {key: _changed(item, (*path, str(key)), change) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_changed(item, (*path, i), change) for i, item in enumerate(value))
    return value
