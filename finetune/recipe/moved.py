"""Moved projects: updates the paths of a run's recipe after its folder was moved or copied with its images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def load_run_recipe(folder: Path) -> Path | Mapping[str, Any]:
    """Return the recipe of a run: its file, or its values with updated paths if the run was moved."""
    from finetune.errors import RecipeError
    from finetune.recipe.document import read_recipe

    file = folder / "recipe.yaml"
    try:
        values = read_recipe(file).values
    except RecipeError:
        return file  # the caller reports the mistake when it loads the file
    moved = follow_move(values, folder, values)
    return file if moved == values else moved


def follow_move(
    said: Mapping[str, Any], folder: Path, recipe: Mapping[str, Any] | None = None, *, copied: bool = False
) -> dict[str, Any]:
    """Return a section of a run's recipe with its current paths; ``folder`` is the run folder.

    The recipe records where the run was made. A path that no longer exists, or any path if ``copied`` is set, is
    searched for in the folder that was moved with the run.
    """
    if recipe is None:
        from finetune.errors import RecipeError
        from finetune.recipe.document import read_recipe

        try:
            recipe = read_recipe(folder / "recipe.yaml").values
        except RecipeError:
            return dict(said)
    made_in = recipe.get("output")
    if not isinstance(made_in, str):
        return dict(said)
    before, now = _strip_common_end(Path(made_in) / folder.absolute().name, folder.absolute())
    if before == now:
        return dict(said)
    found: dict[str, Any] = _replace_paths(dict(said), lambda text: _move_path(text, before, now, copied=copied))
    return found


def _strip_common_end(before: Path, now: Path) -> tuple[Path, Path]:
    """Return two paths without their common trailing names."""
    while before.name and before.name == now.name:
        before, now = before.parent, now.parent
    return before, now


def _move_path(text: str, before: Path, now: Path, *, copied: bool) -> str:
    path = Path(text)
    if not path.is_absolute() or not path.is_relative_to(before) or (os.path.lexists(path) and not copied):
        return text
    candidate = now / path.relative_to(before)
    return str(candidate) if os.path.lexists(candidate) else text


def _replace_paths(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _replace_paths(item, change) for key, item in value.items()}
    return [_replace_paths(item, change) for item in value] if isinstance(value, list) else value
