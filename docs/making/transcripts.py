"""Run the commands of the tutorials and compare what they print with the pages; takes about two minutes.

    python docs/making/transcripts.py [--write]

A block whose first line is a comment with a file name, such as ``# my.yaml``, is written to that file. Commands of
console blocks run in order on a terminal, in an empty folder. In the output on a page, ``…`` stands for lines that are
left out. Prints the names of pages that are out of date and ends with 1 if there are any; --write updates them.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))
import screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Run = Callable[[str, Path], list[str]]

DOCS = Path(__file__).resolve().parents[1]
PAGES = ("tutorials/first-model.md", "tutorials/first-plugin.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.S | re.M)
FILE = re.compile(r"# ([\w./-]+\.\w+)\n")
OMITTED = "…"
COLOUR = re.compile(r"\x1b\[[\d;]*m")
# What differs from machine to machine, or from run to run.
NUMBER = re.compile(r"\d[\d,.:%]*(e[+-]\d+)?\*?|\b(bf|fp)16\b")
BY_ROUNDING = re.compile(r"best |optimizer\.lr=auto chose|warning: training did not improve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of a page and the lines that the page shows below it."""

    line: str
    shown: tuple[str, ...]


def steps(text: str) -> Iterator[tuple[str, str] | Command]:
    """Yield the steps of a page in order: files as name and content, and commands."""
    for language, block in BLOCK.findall(text):
        if language == "console":
            yield from commands(block)
        elif name := FILE.match(block):
            yield name[1], block


def commands(block: str) -> list[Command]:
    """Return the commands of a console block."""
    parts = re.split(r"^\$ ", block, flags=re.M)[1:]
    return [Command(line=lines[0], shown=tuple(lines[1:])) for lines in (part.splitlines() for part in parts)]


def environment(folder: Path) -> dict[str, str]:
    """Return the variables that the commands need; what is installed goes into a folder of its own."""
    site = folder / "site"
    return {
        "FINETUNE_HOME": str(folder / "home"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH", "")))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def perform(text: str, folder: Path, run: Run | None = None) -> list[tuple[Command, list[str]]]:
    """Do the steps of a page in ``folder / "work"``; return each command with what ``run`` says it printed."""
    work = folder / "work"
    work.mkdir()
    found = []
    for step in steps(text):
        if isinstance(step, Command):
            found.append((step, (run or printed)(step.line, work)))
        else:
            name, content = step
            (work / name).write_text(content, encoding="utf-8")
    return found


def printed(line: str, work: Path) -> list[str]:
    """Return what a command prints on a terminal; packages are installed without pip, which would need the network."""
    if line.startswith("pip install"):
        for package in work.glob("finetune-*"):
            install(package, work.parent / "site")
        return []
    return on_screen("".join(screen.record(["bash", "-c", line], work)))


def on_screen(written: str) -> list[str]:
    """Return the lines that a terminal shows after a program wrote to it, without colours."""
    lines = [COLOUR.sub("", each).expandtabs().rstrip() for each in screen.read_lines(written)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def install(package: Path, site: Path) -> None:
    """Make a package importable and its entry points known, as an editable installation does."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(f"{name} = {module}\n" for name, module in project["entry-points"]["finetune"].items())
    (info / "entry_points.txt").write_text(f"[finetune]\n{points}")
    for module in package.glob("*.py"):
        link = site / module.name
        link.unlink(missing_ok=True)
        link.symlink_to(module)


def selected(lines: Sequence[str], shown: Sequence[str]) -> list[str]:
    """Return output with as many lines left out as on the page."""
    if OMITTED not in shown:
        return list(lines)
    head = list(shown).index(OMITTED)
    tail = len(shown) - head - 1
    return [*lines[:head], OMITTED, *lines[len(lines) - tail :]]


def masked(lines: Sequence[str]) -> set[str]:
    """Return lines without what may differ between two machines: numbers, widths of columns, order, what is best."""
    compared = (line for line in lines if not BY_ROUNDING.match(line))
    return {" ".join(NUMBER.sub("#", line).split()) for line in compared} - {"", OMITTED}


def differences(page: str, done: Sequence[tuple[Command, list[str]]]) -> list[str]:
    """Return the lines in which a page and what its commands printed differ."""
    return [
        f"{page}: $ {command.line}: {line}"
        for command, lines in done
        for line in sorted(masked(selected(lines, command.shown)) ^ masked(command.shown))
    ]


def rewritten(text: str, done: Sequence[tuple[Command, list[str]]]) -> str:
    """Return a page with what its commands printed below them; ``done`` is in the order of the page."""
    result = ""
    for command, lines in done:
        before = "\n".join([f"$ {command.line}", *command.shown, ""])
        head, _, text = text.partition(before)
        result += head + "\n".join([f"$ {command.line}", *selected(lines, command.shown), ""])
    return result + text


def main() -> int:
    """Compare the pages with their commands, and update them if asked to."""
    stale = []
    for page in PAGES:
        text = (DOCS / page).read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as name:
            os.environ.update(environment(Path(name)))
            done = perform(text, Path(name))
        stale += differences(page, done)
        if "--write" in sys.argv[1:]:
            (DOCS / page).write_text(rewritten(text, done), encoding="utf-8")
    print("\n".join(stale) or "the tutorials show what their commands print")
    return int(bool(stale) and "--write" not in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
