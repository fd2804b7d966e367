"""Write what the program says of itself into docs/commands.md and docs/components.md.

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

from finetune.recipe.optiontext import schema_of, shown, values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DOCS = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- from the program: begin -->", "<!-- from the program: end -->"
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
    return {"commands.md": page("commands.md", commands()), "components.md": page("components.md", components())}


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
