"""Write what the program says of itself into docs/commands.md, docs/components.md and docs/recipes.md.

    python docs/making/reference.py [--write]

Prints the names of pages that are not up to date, and ends with 1 if there are any; --write mends them.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.recipe.schema import schema_of, shown, values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DOCS = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- from the program: begin -->", "<!-- from the program: end -->"
HEAD = ("| key | what | default | |", "| --- | --- | --- | --- |")
KINDS = ("dataset", "augmentation", "backbone", "freezer", "callback")
WRITTEN = {
    "dataset": "Datasets",
    "augmentation": "Augmentations",
    "backbone": "Backbones",
    "freezer": "Freezing policies",
    "callback": "Callbacks",
}


# Commands


def verbs() -> Iterator[tuple[str, ...]]:
    """Yield the names of all commands, those of groups below their group's."""
    import typer

    from finetune.cli.app import app

    def below(command: Any, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for name, each in getattr(command, "commands", {}).items():
            yield (*names, name)
            yield from below(each, (*names, name))

    return below(typer.main.get_command(app), ())


def help_of(*words: str) -> str:
    """Return what a command says of itself on a terminal of 80 columns."""
    from finetune.cli.app import parse

    before, out = os.environ.get("COLUMNS"), io.StringIO()
    os.environ["COLUMNS"] = "80"
    try:
        with redirect_stdout(out):
            parse([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().strip().splitlines())


def commands() -> str:
    """Return every command under a heading with its help."""
    parts = (f"## finetune {' '.join(words)}\n\n```text\n{help_of(*words)}```\n" for words in verbs())
    return "\n".join(parts)


# Components


def components() -> str:
    """Return every component that comes along, with its options."""
    from finetune import plugins
    from finetune.catalogue import Catalogue

    own = [each for origin, each in Catalogue(plugins.load()) if origin.distribution == plugins.DISTRIBUTION]
    lines: list[str] = []
    for kind in KINDS:
        lines += [f"## {WRITTEN[kind]}", ""]
        for component in (each for each in own if each.kind == kind):
            schema = schema_of(component)
            lines += [f"### {kind}: {component.name}", "", *table(schema)]
    return "\n".join(lines)


def table(schema: Mapping[str, Any]) -> list[str]:
    """Return the lines of a component's options."""
    if not schema.get("properties"):
        return ["No options.", ""]
    lines = [schema.get("description", ""), "", "| option | what | default | |", "| --- | --- | --- | --- |"]
    required = schema.get("required", ())
    for name, option in schema["properties"].items():
        default = "required" if name in required else f"`{shown(option.get('default'))}`"
        about = " ".join(option.get("description", "").split())
        lines.append(f"| `{name}` | {values(option, '`').replace('|', '&#124;')} | {default} | {about} |")
    return [*lines, ""]


# Recipes


def recipes() -> str:
    """Return the recipes that come along, then every section of a recipe with the keys that the engine reads."""
    from finetune.cli.recipes import described, grouped

    lines = ["## Recipes that come along", "", "| for | recipe | |", "| --- | --- | --- |"]
    lines += [
        f"| {group} | `{each['name']}` | {each['purpose']} |"
        for group, inside in grouped(described())
        for each in inside
    ]
    return "\n".join([*lines, "", "## Every key", "", *sections()])


def sections() -> list[str]:
    """Return the lines of all sections; a component's own options are in docs/components.md."""
    from finetune.recipe.mistakes import models_in
    from finetune.recipe.models import Recipe
    from finetune.recipe.parts import SLOTS
    from finetune.recipe.schema import EXTENDS

    whole = Recipe.model_json_schema()
    alone = {name: whole["properties"][name] for name, about in Recipe.model_fields.items() if not has_keys(about)}
    lines = ["### At the top", "", *HEAD, row("extends", EXTENDS), *(row(*each) for each in alone.items()), ""]
    for name, about in Recipe.model_fields.items():
        if name in alone:
            continue
        models = models_in(about.annotation)
        lines += [f"### {name}", "", f"{about.description or models[0].__doc__}{left_out(about.default)}", ""]
        if name in SLOTS:
            kind = SLOTS[name].kind
            lines[-2] += (
                f" [Components](components.md#{WRITTEN[kind].lower().replace(' ', '-')}) has what `use` can name."
            )
        lines += choices(models, about.discriminator)
    return lines


def has_keys(about: Any) -> bool:
    """Tell whether a key of a recipe is a section."""
    from finetune.recipe.mistakes import models_in

    return bool(models_in(about.annotation))


def left_out(default: Any) -> str:
    """Return in words what a list of components is where a recipe does not have it."""
    used = ", ".join(f"`{each.use}`" for each in default) if isinstance(default, tuple) else ""
    return f" Left out, it is {used}." if used else ""


def choices(models: list[Any], told_by: str | None) -> list[str]:
    """Return the lines of a section: keys that all its models have, then each model with its own."""
    properties = [model.model_json_schema()["properties"] for model in models]
    tables = [{name: row(name, about) for name, about in each.items()} for each in properties]
    shared = [line for line in tables[0].values() if all(line in table.values() for table in tables)]
    lines = [*HEAD, *shared, ""] if shared else []
    for model, about, rows in zip(models, properties, tables, strict=True) if told_by else ():
        own = [line for name, line in rows.items() if name != told_by and line not in shared]
        doc = " ".join((model.__doc__ or "").replace("``", "`").split())
        lines += [f"**`{told_by}: {about[told_by]['const']}`** {doc}", "", *([*HEAD, *own, ""] if own else [])]
    return lines


def row(name: str, about: Mapping[str, Any]) -> str:
    """Return the line of a key."""
    default = f"`{shown(about['default'])}`" if "default" in about else ""
    text = about.get("description", "The component." if name == "use" else "")
    return f"| `{name}` | {values(about, '`')} | {default} | {' '.join(text.split())} |"


# Pages


def page(name: str, text: str) -> str:
    """Return a page with what the program says between its marks."""
    before, begin, rest = (DOCS / name).read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"docs/{name} lacks its marks; put '{BEGIN}' and '{END}' where the text belongs")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def pages() -> dict[str, str]:
    """Return the text of each page, as it has to be."""
    made = {"commands.md": commands, "components.md": components, "recipes.md": recipes}
    return {name: page(name, text()) for name, text in made.items()}


def main() -> int:
    """Compare the pages, and mend them if that is asked."""
    stale = [name for name, text in pages().items() if text != (DOCS / name).read_text(encoding="utf-8")]
    if "--write" in sys.argv[1:]:
        for name, text in pages().items():
            (DOCS / name).write_text(text, encoding="utf-8")
        return 0
    for name in stale:
        print(f"docs/{name} is not what the program says; run: make reference")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
