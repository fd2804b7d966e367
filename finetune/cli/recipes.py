"""``ls``, ``cat`` and ``cp``: the recipes that come with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.app import Answer, command
from finetune.recipe import bundled

Name = Annotated[str, typer.Argument(hidden=True, autocompletion=bundled.recipes)]


@command("", "finetune ls")
def ls() -> Answer:
    """List the recipes that come with the project."""
    found = [{"name": n, "purpose": bundled.purpose(p), "path": str(p)} for n, p in bundled.recipes().items()]

    def view() -> str:
        width = max((len(recipe["name"]) for recipe in found), default=0)
        return "\n".join(f"{recipe['name']:<{width}}  {recipe['purpose']}".rstrip() for recipe in found)

    return Answer(data={"recipes": found}, view=view)


@command("NAME", "finetune cat quickstart")
def cat(name: Name) -> Answer:
    """Print a recipe that comes with the project."""
    path = bundled.find(name)
    text = path.read_text(encoding="utf-8")
    return Answer(data={"name": name, "path": str(path), "text": text}, view=lambda: text)


@command("NAME [TARGET]", "finetune cp quickstart mine.yaml")
def cp(name: Name, target: Annotated[Path | None, typer.Argument(hidden=True)] = None) -> Answer:
    """Copy a recipe that comes with the project, to change it.

    TARGET is a file or a folder; without it the copy goes here, under the recipe's own name. No file is overwritten.
    """
    path = bundled.copy(name, target)
    return Answer(data={"name": name, "path": str(path)}, view=lambda: str(path))
