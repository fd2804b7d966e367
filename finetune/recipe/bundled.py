"""Bundled recipes: list, find and copy them, without reading YAML, so that commands start fast."""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path

from finetune.errors import UsageError
from finetune.files.outputs import Output
from finetune.suggest import did_you_mean


def find_recipes_folder() -> Path:
    """Return the folder of the bundled recipes: inside the installed package, or at the top of a source checkout."""
    here = Path(__file__).parents[1]
    return next((path for path in (here / "recipes", here.parent / "recipes") if path.is_dir()), here / "recipes")


def list_recipes() -> dict[str, Path]:
    """Return the file of each bundled recipe by name: its path below the folder, without ``.yaml``."""
    top = find_recipes_folder()
    return {path.relative_to(top).with_suffix("").as_posix(): path for path in sorted(top.rglob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """Return the file of the bundled recipe ``name``; raises ``UsageError`` with a near match if it does not exist."""
    found = list_recipes()
    wanted = name.removesuffix(".yaml")
    if wanted not in found:
        raise UsageError(f"no bundled recipe named '{name}'{did_you_mean(wanted, found)}")
    return found[wanted]


def read_purpose(path: Path) -> str:
    """Return the description in the first line of a recipe, or an empty string."""
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    return first.lstrip("# ").rstrip() if first.startswith("#") else ""


def read_use(path: Path) -> str:
    """Return the use case in the header of a recipe, such as ``a first look``, or an empty string."""
    with path.open(encoding="utf-8") as file:
        header = list(takewhile(lambda line: line.startswith("#"), file))
    found = (line.removeprefix("# For ").strip() for line in header if line.startswith("# For "))
    return next(found, "")


def copy_recipe(name: str, target: Path | None = None, *, force: bool = False) -> Path:
    """Copy a recipe to a file, or into a folder, and return the file.

    Raises ``UsageError`` if the file exists, unless it is an unchanged copy or ``force`` overwrites it.
    """
    source = find_recipe(name)
    file = Path(source.name) if target is None else Path(target)
    path = file / source.name if os.path.isdir(file) else file
    copied = Output(path=path, command="cp", force=force, inputs=[*list_recipes().values()])
    copied.write(source.read_bytes())
    return path
