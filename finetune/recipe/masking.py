"""Secrets in recipes: masks passwords and tokens before plugins or reports see a recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from finetune.files import atomic
from finetune.machine import environment

if TYPE_CHECKING:
    from pathlib import Path

M = TypeVar("M", bound=BaseModel)


def mask_recipe(model: M) -> M:
    """Return a recipe or a section with ``***`` in place of passwords and tokens, at any depth."""
    changed = {name: mask_value(name, value) for name, value in model}
    return model.model_copy(update={name: new for name, new in changed.items() if new != getattr(model, name)})


def mask_value(name: str, value: Any) -> Any:
    """Return the value of a key without its secrets."""
    if isinstance(value, str):
        return environment.mask_secrets(f"{name}={value}")[len(name) + 1 :]
    if isinstance(value, BaseModel):
        return mask_recipe(value)
    if isinstance(value, Mapping):
        return {key: mask_value(str(key), item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(mask_value(name, item) for item in value)
    return value


def write_recipe(path: Path, text: str) -> None:
    """Write a recipe atomically with its secrets, which a resume needs; only the owner can read a file with secrets."""
    if environment.mask_secrets(text) == text:
        atomic.write_text(path, text)
        return
    with atomic.translate_disk_errors(path):
        part = atomic.make_temporary_name(path)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
        os.replace(part, path)
