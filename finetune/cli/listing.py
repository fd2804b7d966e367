"""``plugins`` and ``schema``: what recipes can say here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.cli.app import Answer, command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finetune.components import Options


@command("", "finetune plugins")
def plugins() -> Answer:
    """List what plugins offer, and the broken ones."""
    from finetune import plugins
    from finetune.catalogue import HOOK_OF, Catalogue

    catalogue = Catalogue(plugins.load())
    offered = [
        {
            "kind": component.kind,
            "name": component.name,
            "package": origin.distribution,
            "version": origin.version,
            "plugin": origin.name,
            "options": options(component.options),
        }
        for origin, component in catalogue
    ]
    components = set(HOOK_OF.values())
    listening = [
        {
            "plugin": origin.name,
            "package": origin.distribution,
            "version": origin.version,
            "hooks": [hook for hook in hooks if hook not in components],
        }
        for origin, hooks in catalogue.plugins.hooks()
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
    return Answer(data=found, view=lambda: tables(offered, listening, broken))


def options(model: type[Options]) -> dict[str, str]:
    """Return a component's options with their defaults, as one writes them."""
    return {
        field.alias or name: "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        for name, field in model.model_fields.items()
    }


def _shown(value: Any) -> str:
    import json

    text = json.dumps(value, default=str)
    return text if len(text) <= 30 else f"{text[:29]}…"


def tables(
    offered: list[dict[str, Any]], listening: list[dict[str, Any]], broken: list[dict[str, str]]
) -> RenderableType:
    """Return the offer as a table, then plugins with hooks of other kinds, and broken ones at last."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from finetune.display.terminal import printable

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("kind", "name", "from"):
        table.add_column(title, no_wrap=True)
    table.add_column("options", overflow="fold")
    for row in offered:
        said = ", ".join(f"{name}={default}" for name, default in row["options"].items())
        cells = (row["kind"], row["name"], f"{row['package']} {row['version']}", said)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    for row in listening:
        cells = ("hooks", row["plugin"], f"{row['package']} {row['version']}", ", ".join(row["hooks"]))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    lines = []
    for each in broken:
        whose = f"{each['plugin']} ({each['package']} {each['version']})"
        lines.append(Text(printable(f"not loaded: {whose}: {each['error']}; {each['remedy']}"), "red"))
    return Group(table, *lines)


@command("", "finetune schema > recipe.schema.json")
def schema() -> Answer:
    """Print the JSON schema of recipes, for editors.

    It has the options of every plugin that is installed.
    """
    import json

    from finetune import plugins
    from finetune.catalogue import Catalogue
    from finetune.recipe.schema import json_schema

    whole = json_schema(Catalogue(plugins.load()))
    return Answer(data=whole, view=lambda: json.dumps(whole, indent=2))
