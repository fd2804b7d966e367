"""``plugins`` and ``schema``: list the components and keys that recipes can use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli import backbones, completers
from finetune.cli.app import Answer, command
from finetune.cli.parameters import Force, make_output_option
from finetune.files.outputs import STDOUT, Output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finetune.components import Component, Options

SchemaFile = Annotated[Path | None, make_output_option("--output", help="Write the schema to this file; - prints it.")]


@command("[show NAME]", "finetune plugins", "finetune plugins show folder")
def plugins(
    words: Annotated[list[str] | None, typer.Argument(hidden=True, autocompletion=completers.offer_components)] = None,
) -> Answer:
    """List the components of plugins, and broken plugins.

    `show NAME` describes one component: its options with their defaults, and an
    example for a recipe. For a backbone, it also lists stages and weights.
    """
    if words:
        return show_component(words)
    from finetune import plugins
    from finetune.catalogue import Catalogue
    from finetune.components import KINDS

    catalogue = Catalogue(plugins.load_plugins())
    offered = [
        {
            "kind": component.kind,
            "name": component.name,
            "package": origin.distribution,
            "version": origin.version,
            "plugin": origin.name,
            "about": summarise_options(component),
            "options": list_options(component.options),
        }
        for origin, component in catalogue
    ]
    components = {kind.hook for kind in KINDS}
    listening = [
        {
            "plugin": origin.name,
            "package": origin.distribution,
            "version": origin.version,
            "hooks": [hook for hook in hooks if hook not in components],
        }
        for origin, hooks in catalogue.plugins.iterate_hooks()
        if not components.issuperset(hooks)
    ]
    broken = [
        {
            "plugin": item.origin.name,
            "package": item.origin.distribution,
            "version": item.origin.version,
            "error": item.reason,
            "remedy": item.origin.remedy,
        }
        for item in catalogue.plugins.broken
    ]
    found = {"components": offered, "hooks": listening, "broken": broken}
    return Answer(data=found, view=lambda: render_tables(offered, listening, broken))


def summarise_options(component: Component) -> str:
    """Return the first line of the docstring of a component's options, or an empty string."""
    from finetune.components import NoOptions

    said = (component.options.__doc__ or "").strip().partition("\n")[0]
    return "" if component.options is NoOptions else said


def show_component(words: list[str]) -> Answer:
    """Describe the components with one name."""
    from finetune import plugins
    from finetune.catalogue import Catalogue
    from finetune.errors import UsageError
    from finetune.suggest import did_you_mean

    if words[0] != "show" or len(words) != 2:
        raise UsageError(f"unexpected argument '{' '.join(words)}'; write `finetune plugins show NAME`")
    name, catalogue = words[1], Catalogue(plugins.load_plugins())
    found = []
    for origin, component in catalogue:
        if component.name == name:
            with plugins.attribute_errors(origin, f"the declaration of {component.kind} '{name}'"):
                found.append(describe_component(component, str(origin)))
    if not found:
        offered = sorted({component.name for _, component in catalogue})
        raise UsageError(f"no component named '{name}'{did_you_mean(name, offered)}; see `finetune plugins`")
    return Answer(data={"components": found}, view=lambda: render_pages(found))


def describe_component(component: Component, origin: str) -> dict[str, Any]:
    """Return a component with its options, ready for JSON; a backbone also with its stages and weights."""
    from finetune.components import Backbone
    from finetune.recipe.schema import describe_values, format_yaml, get_options_schema, make_example

    schema = get_options_schema(component)
    required = schema.get("required", ())
    listed = [
        {
            "name": name,
            "takes": describe_values(option),
            "default": "required" if name in required else format_yaml(option.get("default")),
            "about": " ".join(option.get("description", "").split()),
        }
        for name, option in schema.get("properties", {}).items()
    ]
    more = backbones.collect_facts(component) if isinstance(component, Backbone) else {}
    return {
        "kind": component.kind,
        "name": component.name,
        "origin": origin,
        "about": summarise_options(component),
        "options": listed,
        "example": make_example(component),
        **more,
    }


def render_pages(found: list[dict[str, Any]]) -> RenderableType:
    """Return the descriptions of some components for people, one below the other."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    from finetune.display.terminal import make_printable

    parts: list[RenderableType] = []
    for each in found:
        parts.append(Text(make_printable(f"{each['kind']} {each['name']}, of {each['origin']}"), "bold"))
        parts += [Text(make_printable(each["about"]))] if each["about"] else []
        parts += backbones.render_facts(each) if "stages" in each else []
        for option in each["options"]:
            default = "required" if option["default"] == "required" else f"default {option['default']}"
            parts.append(Text(make_printable(f"\n{option['name']}: {option['takes']}; {default}"), "cyan"))
            parts.append(Padding(Text(make_printable(option["about"])), (0, 0, 0, 2)))
        parts += [Text("\nin a recipe:"), Padding(Text(make_printable(each["example"].rstrip())), (0, 0, 1, 2))]
    return Group(*parts)


def list_options(model: type[Options]) -> dict[str, str]:
    """Return a component's options with their defaults as in a recipe."""
    return {
        field.alias or name: "required"
        if field.is_required()
        else _format_default(field.get_default(call_default_factory=True))
        for name, field in model.model_fields.items()
    }


def _format_default(value: Any) -> str:
    import json

    text = json.dumps(value, default=str)
    return text if len(text) <= 30 else f"{text[:29]}…"


def render_tables(
    offered: list[dict[str, Any]], listening: list[dict[str, Any]], broken: list[dict[str, str]]
) -> RenderableType:
    """Return a table of components, then plugins with other hooks, and broken plugins last."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from finetune.display.terminal import make_printable

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("kind", "name", "from"):
        table.add_column(title, no_wrap=True)
    table.add_column("description and options", overflow="fold")
    for row in offered:
        given = ", ".join(f"{name}={default}" for name, default in row["options"].items())
        said = "\n".join(filter(None, [row["about"], given]))
        cells = (row["kind"], row["name"], f"{row['package']} {row['version']}", said)
        table.add_row(*(Text(make_printable(cell)) for cell in cells))
    for row in listening:
        cells = ("hooks", row["plugin"], f"{row['package']} {row['version']}", ", ".join(row["hooks"]))
        table.add_row(*(Text(make_printable(cell)) for cell in cells))
    lines = []
    if disabled := os.environ.get("FINETUNE_DISABLE_PLUGINS"):
        lines.append(Text(make_printable(f"disabled by FINETUNE_DISABLE_PLUGINS: {disabled}")))
    for each in broken:
        whose = f"{each['plugin']} ({each['package']} {each['version']})"
        lines.append(Text(make_printable(f"not loaded: {whose}: {each['error']}; {each['remedy']}"), "red"))
    return Group(table, *lines)


@command("", "finetune schema --output recipe.schema.json", "finetune schema > recipe.schema.json")
def schema(output: SchemaFile = None, force: Force = False) -> Answer:
    """Print the JSON schema of recipes, for editors.

    It contains the options of every installed plugin. With --output, the schema
    is written to a file. The command then prints the line by which an editor
    finds it; make it the first line of each recipe in the same folder.
    """
    import json

    from finetune import plugins
    from finetune.catalogue import Catalogue
    from finetune.recipe.schema import build_json_schema

    file = None if output in (None, STDOUT) else Output(path=output, command="schema", force=force)
    if file is not None:
        file.check()
    whole = build_json_schema(Catalogue(plugins.load_plugins()))
    if file is None:
        return Answer(data=whole, view=lambda: json.dumps(whole, indent=2))
    file.write(f"{json.dumps(whole, indent=2)}\n".encode())
    line = f"# yaml-language-server: $schema={file.path.name}"
    return Answer(data={"path": str(file.path), "line": line}, view=lambda: line)
