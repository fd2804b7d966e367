"""Fields of a Hub card: names and values between two ``---`` lines, and the fields of each asset.

The fields look like YAML and are read line by line as text, since many cards are not valid YAML. Assets may be block
entries (``- file-format: ckpt`` and indented lines, or the dash alone), or flow entries (``[{file-format: ckpt, …}]``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LONGEST = 2048  # characters of a value; no address is longer
ENTRY = re.compile(r"\s*-(?:\s+(.*))?")
FLOW = re.compile(r"\s*(?:-|assets?\s*:)\s*[\[{]", re.IGNORECASE)
FLOW_ENTRY = re.compile(r"\{([^{}]*)\}")
NAME = re.compile(r"[A-Za-z][\w .-]{0,40}")
OF_AN_ASSET = ("file-format", "asset-link", "asset-sha256")

Asset = list[tuple[str, str]]


@dataclass(slots=True)
class Fields:
    """The fields of a card by name, the first of each, and those of each asset."""

    said: dict[str, str] = field(default_factory=dict)
    assets: list[Asset] = field(default_factory=list)


def parse_fields(lines: Sequence[str]) -> Fields:
    """Return the fields of a card; a line that begins an entry, or is indented within one, belongs to an asset."""
    found = Fields()
    within = False
    for line in unfold_flow(lines):
        if entry := ENTRY.fullmatch(line):
            found.assets.append([])
            within, line = True, f" {entry[1] or ''}"
        name, colon, value = line.partition(":")
        if not colon:
            continue
        name = strip_value(name).lower().replace("_", "-")
        if not NAME.fullmatch(name):
            continue
        within = within and (line[0].isspace() or name in OF_AN_ASSET)
        if within:
            found.assets[-1].append((name, strip_value(value)))
        else:
            found.said.setdefault(name, strip_value(value))
    return found


def unfold_flow(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a card, flow entries as block entries; brackets that are never closed stay as they are."""
    number = 0
    while number < len(lines):
        line = lines[number]
        if not ("{" in line or "[" in line) or not FLOW.match(line):
            yield line
            number += 1
            continue
        end = closing_line(lines, number)
        if end is None:
            yield from lines[number:]
            return
        for entry in FLOW_ENTRY.finditer(" ".join(lines[number : end + 1])):
            yield "-"
            yield from (f"  {pair.strip()}" for pair in re.split(r",(?=[\s\"']*[A-Za-z][\w -]*[\"']?\s*:)", entry[1]))
        number = end + 1


def closing_line(lines: Sequence[str], start: int) -> int | None:
    """Return the line on which the brackets that open on line ``start`` are closed."""
    depth = 0
    for number in range(start, len(lines)):
        depth += sum(lines[number].count(bracket) for bracket in "[{")
        depth -= sum(lines[number].count(bracket) for bracket in "]}")
        if depth <= 0:
            return number
    return None


def strip_value(value: str) -> str:
    """Return a value without a comment, quotes, the angle brackets of a link, and control characters."""
    value = re.sub(r"(?:^|\s)#.*", "", printable(value.strip()[:LONGEST])).strip()
    for first, last in ("''", '""', "<>"):
        if len(value) > 1 and value[0] == first and value[-1] == last:
            value = value[1:-1].strip()
    return value


def printable(text: str) -> str:
    """Return a text without control characters."""
    return "".join(character for character in text if character.isprintable())
