"""What pages of documentation hold: blocks of code, commands, links."""

from __future__ import annotations

import re
import shlex

FENCE = re.compile(r"^```.*?^```$", re.S | re.M)


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


def prose(text: str) -> str:
    """Return text without its code blocks."""
    return FENCE.sub("", text)


def lines(text: str) -> list[str]:
    """Return the command lines of console blocks, whatever machine they are typed on."""
    consoles = "\n".join(blocks(text, "console")).replace("\\\n", " ")
    return re.findall(r"^\w*\$ (.*)$", consoles, re.M)


def commands(text: str, program: str) -> list[list[str]]:
    """Return the arguments of every call of a program, in console blocks and in the text."""
    inline = re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(text))
    found = (words(line) for line in (*lines(text), *inline) if line.startswith(f"{program} "))
    return [each[1:] for each in found]


def words(line: str) -> list[str]:
    """Return the words of a command line, without its comment and where its output goes."""
    return shlex.split(re.split(r" #| > ", line, maxsplit=1)[0])


def links(text: str) -> list[str]:
    """Return where links and pictures lead."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def anchors(text: str) -> set[str]:
    """Return the names of a page's headings, as links write them: letters, digits and hyphens."""
    titles = (re.sub(r"[^\w\s-]", "", title).strip().lower() for title in re.findall(r"^#+ (.+)$", prose(text), re.M))
    return {re.sub(r"[-\s]+", "-", title) for title in titles}


def section(guide: str, start: str) -> str:
    """Return the text below the heading that begins with ``start``, up to the next heading."""
    match = re.search(rf"^#+ `?{re.escape(start)}.*?\n(.*?)(?=^#+ [^\n]|\Z)", without_comments(guide), re.S | re.M)
    assert match, start
    return match[1]


def chapter(guide: str, title: str) -> str:
    """Return the text below a heading of the second level, with all its sections."""
    _, found, rest = without_comments(guide).partition(f"\n## {title}\n")
    assert found, title
    return rest.partition("\n## ")[0]


def without_comments(text: str) -> str:
    """Return text in which no line of a code block looks like a heading."""
    return re.sub(
        r"^(```\w+\n.*?^```)$", lambda block: re.sub(r"^#", " #", block[1], flags=re.M), text, flags=re.S | re.M
    )
