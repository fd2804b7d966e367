"""Generate the reference parts of docs/commands.md, docs/components.md and docs/recipes.md from the program.

    python docs/making/reference.py [--write]

Prints the names of outdated pages and exits with 1 if there are any; --write updates them.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.recipe.schema import describe_values, format_yaml, get_options_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DOCS = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- from the program: begin -->", "<!-- from the program: end -->"
HEAD = ("| key | value | default | meaning |", "| --- | --- | --- | --- |")
KINDS = ("dataset", "augmentation", "backbone", "freezer", "callback", "audit")
WRITTEN = {
    "dataset": "Datasets",
    "augmentation": "Augmentations",
    "backbone": "Backbones",
    "freezer": "Freezing policies",
    "callback": "Callbacks",
    "audit": "Checks of audits",
}


# Commands


def command_names() -> Iterator[tuple[str, ...]]:
    """Yield the words of each command, such as ``("weights", "ls")``; a group comes before its commands."""
    import typer

    from finetune.cli.app import app

    def below(command: Any, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for name, each in getattr(command, "commands", {}).items():
            yield (*names, name)
            yield from below(each, (*names, name))

    return below(typer.main.get_command(app), ())


def read_help(*words: str) -> str:
    """Return the ``--help`` of a command on a terminal of 80 columns."""
    from finetune.cli.app import parse_command_line

    before, out = os.environ.get("COLUMNS"), io.StringIO()
    os.environ["COLUMNS"] = "80"
    try:
        with redirect_stdout(out):
            parse_command_line([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().strip().splitlines())


def write_commands() -> str:
    """Return a section for each command, with its help."""
    parts = (f"## finetune {' '.join(words)}\n\n```text\n{read_help(*words)}```\n" for words in command_names())
    return "\n".join(parts)


# Components


def write_components() -> str:
    """Return a section for each bundled component, with its options."""
    from finetune import plugins
    from finetune.catalogue import Catalogue

    own = [each for origin, each in Catalogue(plugins.load_plugins()) if origin.distribution == plugins.DISTRIBUTION]
    lines: list[str] = []
    for kind in KINDS:
        lines += [f"## {WRITTEN[kind]}", ""]
        for component in (each for each in own if each.kind == kind):
            schema = get_options_schema(component)
            lines += [f"### {kind}: {component.name}", "", *write_options(schema)]
    return "\n".join(lines)


def write_options(schema: Mapping[str, Any]) -> list[str]:
    """Return a component's description and the table of its options."""
    if not schema.get("properties"):
        return ["It has no options.", ""]
    lines = [schema.get("description", ""), "", "| option | value | default | meaning |", "| --- | --- | --- | --- |"]
    required = schema.get("required", ())
    for name, option in schema["properties"].items():
        default = "required" if name in required else f"`{format_yaml(option.get('default'))}`"
        about = " ".join(option.get("description", "").split())
        lines.append(f"| `{name}` | {describe_values(option, '`').replace('|', '&#124;')} | {default} | {about} |")
    return [*lines, ""]


# Recipes


def write_recipes() -> str:
    """Return the bundled recipes, then each section of a recipe with the keys that the engine reads."""
    from finetune.cli.recipes import describe_recipes, group_by_purpose

    lines = ["## Bundled recipes", "", "| for | recipe | purpose |", "| --- | --- | --- |"]
    lines += [
        f"| {group} | `{each['name']}` | {each['purpose']} |"
        for group, inside in group_by_purpose(describe_recipes())
        for each in inside
    ]
    return "\n".join([*lines, "", "## Every key", "", *write_sections()])


def write_sections() -> list[str]:
    """Return the lines of all sections; the options of components are in docs/components.md."""
    from finetune.recipe.mistakes import find_models
    from finetune.recipe.models import Recipe
    from finetune.recipe.parts import SLOTS
    from finetune.recipe.schema import EXTENDS

    properties = Recipe.model_json_schema()["properties"]
    alone = {name: properties[name] for name, about in Recipe.model_fields.items() if not has_keys(about)}
    lines = [
        "### Top level",
        "",
        *HEAD,
        write_row("extends", EXTENDS),
        *(write_row(*each) for each in alone.items()),
        "",
    ]
    for name, about in Recipe.model_fields.items():
        if name in alone:
            continue
        models = find_models(about.annotation)
        lines += [f"### {name}", "", f"{about.description or models[0].__doc__}{describe_default(about.default)}", ""]
        if name in SLOTS:
            kind = SLOTS[name].kind
            anchor = WRITTEN[kind].lower().replace(" ", "-")
            lines[-2] += f" [Components](components.md#{anchor}) lists the values of `use`."
        lines += write_choices(models, about.discriminator)
    return lines


def has_keys(about: Any) -> bool:
    """Return whether a key of a recipe is a section."""
    from finetune.recipe.mistakes import find_models

    return bool(find_models(about.annotation))


def describe_default(default: Any) -> str:
    """Return a sentence with the default of a list of components."""
    used = ", ".join(f"`{each.use}`" for each in default) if isinstance(default, tuple) else ""
    return f" The default is {used}." if used else ""


def write_choices(models: list[Any], discriminator: str | None) -> list[str]:
    """Return the lines of a section: the keys that all its models share, then each model with its own keys."""
    properties = [model.model_json_schema()["properties"] for model in models]
    tables = [{name: write_row(name, about) for name, about in each.items()} for each in properties]
    shared = [line for line in tables[0].values() if all(line in table.values() for table in tables)]
    lines = [*HEAD, *shared, ""] if shared else []
    for model, about, rows in zip(models, properties, tables, strict=True) if discriminator else ():
        own = [line for name, line in rows.items() if name != discriminator and line not in shared]
        doc = " ".join((model.__doc__ or "").replace("``", "`").split())
        lines += [
            f"**`{discriminator}: {about[discriminator]['const']}`** {doc}",
            "",
            *([*HEAD, *own, ""] if own else []),
        ]
    return lines


def write_row(name: str, about: Mapping[str, Any]) -> str:
    """Return the row of a key."""
    default = f"`{format_yaml(about['default'])}`" if "default" in about else ""
    text = about.get("description", "Name of the component." if name == "use" else "")
    return f"| `{name}` | {describe_values(about, '`')} | {default} | {' '.join(text.split())} |"


# Pages


def update_page(name: str, text: str) -> str:
    """Return a page with ``text`` between its marks."""
    before, begin, rest = (DOCS / name).read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"docs/{name} has no marks; put '{BEGIN}' and '{END}' where the generated text belongs")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def pages() -> dict[str, str]:
    """Return the up-to-date text of each page."""
    writers = {"commands.md": write_commands, "components.md": write_components, "recipes.md": write_recipes}
    return {name: update_page(name, write()) for name, write in writers.items()}


def main() -> int:
    """Compare the pages with the program, or update them."""
    stale = [name for name, text in pages().items() if text != (DOCS / name).read_text(encoding="utf-8")]
    if "--write" in sys.argv[1:]:
        for name, text in pages().items():
            (DOCS / name).write_text(text, encoding="utf-8")
        return 0
    for name in stale:
        print(f"docs/{name} is out of date; run: make reference")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
