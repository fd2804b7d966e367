"""Words that this project does not use, and where they occur.

    python -m tests.wording

Prints every hit as ``path:line: word: text``.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.pages import FENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = Path(__file__).resolve().parents[1]
BE = r"(?:is|are|was|were|be|been|being)"
THERE = r"\bthere\s+(?:\w+\s+)?"  # "there is no space" and "there must be no space" are plain English
USUAL = r"longer|more|less|fewer|better|worse|larger|smaller|higher|lower|faster|slower|different|matter|one"
# What not to write, as a regular expression, and what to write instead.
WORDS = {
    "mend": (r"\bmend(?:s|ed|ing)?\b", "fix"),
    "anew": (r"\banew\b", "again; restart, re-initialise"),
    "go on": (r"\b(?:go|goes|going|gone|went)\s+on\b", "resume, continue"),
    "is said": (rf"\b{BE}\s+said\b", "is reported, is printed, warns"),
    "is told": (rf"(?<!\bcannot\s)\b{BE}\s+told\b", "is reported, is printed, warns"),
    "come along": (r"\b(?:come|comes|came|coming)\s+along\b", "bundled"),
    "beside": (r"\bbeside\b", "next to; alongside; in the background"),
    "whole": (
        r"(?<!\bas\sa\s)(?<!\bon\sthe\s)(?!\bwhole\s+numbers?\b)(?!(?<=\bthe\s)whole(?:\s+of\b|[,.;:)]))\bwhole\b",
        "complete, entire",
    ),
    "held against": (r"\b(?:held|hold|holds|holding)\s+(?:\w+\s+)?against\b", "matched against, compared with"),
    "is no X": (rf"(?:{THERE})?\b{BE}\s+no\s+(?!(?:{USUAL})\b)(?:\w+|\{{)", "is not a X"),
    "is none": (rf"(?:{THERE})?\b{BE}\s+none\s+of\b", "is not one of; must be"),
    "others": (rf"\b(?:{BE}|become|becomes|became)\s+others\b|\bothers\s+than\b", "different"),
    "stands": (
        r"(?<!\bas it )(?<!\bas they )\b(?:stand|stands|stood|standing)\s+(?:above|below|beside|here|in|there|under)\b",
        "the following, the previous; is",
    ),
    "died of": (r"\b(?:die|dies|died)\s+of\b", "however it failed"),
    "until now": (r"\buntil\s+now\b", "nothing, or the exact time"),
    "so far as": (r"\b(?:in\s+)?so\s+far\s+as\b", "nothing, or the exact limit"),
    "there is none to": (r"\bthere\s+(?:is|are|was|were)\s+none\s+to\b", "no … to …"),
    "not suffice": (r"\bnot\s+suffice\b", "is not enough; out of memory; out of disk space"),
    "of no use": (r"\bof\s+no\s+use\b", "conflicts with, has no effect"),
}
PATTERNS = {word: re.compile(pattern, re.I) for word, (pattern, _) in WORDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A word at its place; ``text`` is what is around it, on one line."""

    path: str
    line: int
    word: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word}: {self.text}"


def find(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield each word that the text should not have, with its match."""
    for word, pattern in PATTERNS.items():
        for match in pattern.finditer(text):
            is_code = text[: match.start()].endswith("`") and text[match.end() :].startswith("`")
            is_plain = match[0].lower().startswith("there") and word != "there is none to"
            if not is_code and not is_plain:
                yield word, match


def hits_in(path: str, text: str, first: int = 1) -> Iterator[Hit]:
    """Yield the hits of a text that begins at a line of a file."""
    for word, match in find(text):
        around = " ".join(text[max(0, match.start() - 50) : match.end() + 50].split())
        yield Hit(path=path, line=first + text.count("\n", 0, match.start()), word=word, text=around)


# Pages: everything except what a program wrote into them, which is checked where it comes from.

PAGES = (
    *("*.md", "docs/**/*.md", "docs/**/*.py", "recipes/*.yaml", "finetune/new/templates/**/*.jinja"),
    *("examples/**/*.md", "examples/**/*.py", "examples/**/*.ipynb"),
)
GENERATED = re.compile(r"<!-- ([\w ]+): begin -->.*?<!-- \1: end -->", re.S)


def pages() -> list[Path]:
    """Return the files that people read as they are."""
    found = {file for pattern in PAGES for file in REPO.glob(pattern)}
    return sorted(file for file in found if not {".venv", "site", "runs"} & {*file.relative_to(REPO).parts})


def hits_in_page(file: Path) -> Iterator[Hit]:
    """Yield the hits of a page, outside of its blocks of code and its generated parts."""
    text = file.read_text(encoding="utf-8")
    for pattern in (GENERATED, FENCE) if file.suffix == ".md" else ():
        text = pattern.sub(lambda part: "\n" * part[0].count("\n"), text)
    yield from hits_in(file.relative_to(REPO).as_posix(), text)


# Code: docstrings, messages and help texts.

PACKAGES = ("finetune", "model", "plugins")


def sources() -> list[Path]:
    """Return the modules of the product."""
    return sorted(file for package in PACKAGES for file in (REPO / package).rglob("*.py"))


def hits_in_source(file: Path) -> Iterator[Hit]:
    """Yield the hits of all docstrings and string literals of a module."""
    path = file.relative_to(REPO).as_posix()
    for line, text in literals(ast.parse(file.read_text(encoding="utf-8"))):
        yield from hits_in(path, text, line)


def literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each string literal; a value in an f-string becomes ``{}``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values),
            )
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    yield from literals(part)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if " " in node.value:  # a single word is a key or a name
                yield node.lineno, node.value
        else:
            yield from literals(node)


def all_hits() -> Iterator[Hit]:
    """Yield the hits of all pages and modules."""
    for file in pages():
        yield from hits_in_page(file)
    for file in sources():
        yield from hits_in_source(file)


def main() -> None:
    """Print every hit."""
    for hit in all_hits():
        print(hit)


if __name__ == "__main__":
    main()
