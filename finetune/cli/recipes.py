"""``ls``, ``cat`` and ``cp``: list, print and copy the bundled recipes."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.app import Answer, command
from finetune.cli.parameters import Force
from finetune.files.outputs import STDOUT, parse_output
from finetune.recipe import bundled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST = ("a first look", "your own photos", "choosing what trains", "other devices")

Name = Annotated[str, typer.Argument(hidden=True, autocompletion=bundled.list_recipes)]


@command("", "finetune ls")
def ls() -> Answer:
    """List the bundled recipes by purpose.

    `finetune cat NAME` prints a recipe, and `finetune cp NAME` copies it, so that
    you can edit it.
    """
    found = describe_recipes()
    return Answer(data={"recipes": found}, view=lambda: format_groups(group_by_purpose(found)))


def describe_recipes() -> list[dict[str, str]]:
    """Return name, purpose and use case of each bundled recipe."""
    return [
        {"name": name, "purpose": bundled.read_purpose(path), "for": bundled.read_use(path), "path": str(path)}
        for name, path in bundled.list_recipes().items()
    ]


def group_by_purpose(found: Sequence[Mapping[str, str]]) -> list[tuple[str, list[Mapping[str, str]]]]:
    """Group recipes by use case, those for beginners first."""
    others = sorted({recipe["for"] for recipe in found} - {*FIRST})
    groups = [(group, [recipe for recipe in found if recipe["for"] == group]) for group in (*FIRST, *others)]
    return [(group, inside) for group, inside in groups if inside]


def format_groups(groups: Sequence[tuple[str, Sequence[Mapping[str, str]]]]) -> str:
    """Format names and purposes in lines of 80 characters."""
    width = max((len(recipe["name"]) for _, inside in groups for recipe in inside), default=0)
    lines = []
    for group, inside in groups:
        lines += ["", f"for {group or 'other ends'}:"]
        for recipe in inside:
            name = f"  {recipe['name']:<{width}}  "
            lines.append(fill(recipe["purpose"], 80, initial_indent=name, subsequent_indent=" " * len(name)) or name)
    return "\n".join(line.rstrip() for line in lines[1:])


@command("NAME", "finetune cat quickstart")
def cat(name: Name) -> Answer:
    """Print a bundled recipe."""
    path = bundled.find_recipe(name)
    text = path.read_text(encoding="utf-8")
    return Answer(data={"name": name, "path": str(path), "text": text}, view=lambda: text)


@command("NAME [TARGET]", "finetune cp quickstart mine.yaml")
def cp(
    name: Name,
    target: Annotated[Path | None, typer.Argument(hidden=True, parser=parse_output)] = None,
    force: Force = False,
) -> Answer:
    """Copy a bundled recipe, so that you can edit it.

    TARGET is a file or a folder, by default the current folder; - is standard
    output. To change only a few keys, write a recipe that starts with
    `extends: NAME`.
    """
    if target == STDOUT:
        return cat(name)
    path = bundled.copy_recipe(name, target, force=force)
    return Answer(data={"name": name, "path": str(path)}, view=lambda: str(path))
