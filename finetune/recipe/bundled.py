"""The recipes that come with the project, by name."""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path

from finetune.errors import UsageError
from finetune.files.outputs import Output
from finetune.suggest import did_you_mean


def folder() -> Path:
    """Return where the recipes lie: beside this file once installed, at the top of a source checkout."""
    here = Path(__file__).parents[1]
    return next((path for path in (here / "recipes", here.parent / "recipes") if path.is_dir()), here / "recipes")


def recipes() -> dict[str, Path]:
    """Return every recipe's file by its name: the path below the folder, without ``.yaml``."""
    top = folder()
    return {path.relative_to(top).with_suffix("").as_posix(): path for path in sorted(top.rglob("*.yaml"))}


def find(name: str) -> Path:
    """Return the file of the recipe called ``name``; ``UsageError`` with a near match if there is none."""
    found = recipes()
    wanted = name.removesuffix(".yaml")
    if wanted not in found:
        raise UsageError(f"no bundled recipe named '{name}'{did_you_mean(wanted, found)}")
    return found[wanted]


def purpose(path: Path) -> str:
    """Return what a recipe says about itself in its first line."""
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    return first.lstrip("# ").rstrip() if first.startswith("#") else ""


def good_for(path: Path) -> str:
    """Return what a recipe says that it is for, such as ``a first look``; nothing if it says nothing."""
    with path.open(encoding="utf-8") as file:
        header = list(takewhile(lambda line: line.startswith("#"), file))
    found = (line.removeprefix("# For ").strip() for line in header if line.startswith("# For "))
    return next(found, "")


def copy(name: str, target: Path | None = None, *, force: bool = False) -> Path:
    """Copy a recipe to a file, or into a folder, and return the file.

    Raises ``UsageError`` if the file exists, unless it is an unchanged copy or ``force`` overwrites it.
    """
    source = find(name)
    file = Path(source.name) if target is None else Path(target)
    path = file / source.name if os.path.isdir(file) else file
    copied = Output(path=path, command="cp", force=force, inputs=[*recipes().values()])
    copied.write(source.read_bytes())
    return path
