"""Places in a recipe, mistakes at these places, and paths relative to the folder of a recipe."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from finetune.files.atomic import expand_home
from finetune.text import escape_line

KeyPath = tuple[str | int, ...]

_PLAIN = re.compile(r"[^\s.\[\]=\"'~]+")


class Place(NamedTuple):
    """The position of a key: line and column from 1, its name ``text``, and the ``folder`` at which paths start.

    ``depth`` is 0 in the recipe itself, 1 in the recipe that it extends, and so on.
    """

    line: int
    column: int
    text: str
    folder: Path
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake at a key, or at a place if the path is empty."""

    place: Place
    path: KeyPath
    text: str

    def __str__(self) -> str:
        key = f"{format_path(self.path)}: " if self.path else ""
        return f"{self.place.text}: {key}{self.text}"


def format_path(path: KeyPath) -> str:
    """Return a key path as in an override, such as ``augment[0].preset``."""
    return "".join(map(_format_segment, path)).removeprefix(".")


def _format_segment(element: str | int) -> str:
    if isinstance(element, int):
        return f"[{element}]"
    short = clip_text(element)
    return f".{short}" if _PLAIN.fullmatch(element) else f'."{short}"'


def clip_text(text: str, length: int = 60) -> str:
    """Return ``text`` on one line; text that is longer than ``length`` is shortened in the middle."""
    line = escape_line(text)
    half = length // 2
    return line if len(line) <= length else f"{line[: half - 1]}…{line[-half:]}"


M = TypeVar("M", bound=BaseModel)
Absolute = Callable[[Path, KeyPath], Path]

_WEIGHTS = (".safetensors", ".ckpt", ".pth", ".md")


def make_absolute(path: str | Path, folder: Path) -> Path:
    """Return ``path`` below ``folder`` with ``~`` and ``..`` resolved; ``UsageError`` for an unknown ``~user``."""
    return Path(os.path.normpath(folder / expand_home(path, folder)))


def is_weights_file(text: str) -> bool:
    """Return whether ``backbone.weights`` is a file, not a name or a URL."""
    separators = {"/", os.sep, os.altsep or "/"}
    return "://" not in text and (text.endswith(_WEIGHTS) or any(separator in text for separator in separators))


def resolve_paths(model: M, path: KeyPath, change: Absolute) -> M:
    """Return ``model`` with each path in its fields, at any depth, replaced by ``change(path, key path)``."""
    changed = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        new = _change_paths(value, (*path, field.alias or name), change)
        if new is not value:
            changed[name] = new
    return model.model_copy(update=changed) if changed else model


def _change_paths(value: Any, path: KeyPath, change: Absolute) -> Any:
    if isinstance(value, Path):
        return change(value, path)
    if isinstance(value, BaseModel):
        return resolve_paths(value, path, change)
    if isinstance(value, dict):
        return {key: _change_paths(item, (*path, str(key)), change) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_change_paths(item, (*path, i), change) for i, item in enumerate(value))
    return value
