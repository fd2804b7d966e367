"""Where in a recipe something stands, and what is wrong there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from finetune.text import escape_line

if TYPE_CHECKING:
    from pathlib import Path

KeyPath = tuple[str | int, ...]

_PLAIN = re.compile(r"[^\s.\[\]=\"'~]+")


class Place(NamedTuple):
    """Where a key stands: line and column count from 1, ``text`` names it, relative paths start at ``folder``.

    ``depth`` is 0 in the recipe itself, 1 in the one it extends, and so on.
    """

    line: int
    column: int
    text: str
    folder: Path
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong at a key; without a path it concerns the place alone."""

    place: Place
    path: KeyPath
    text: str

    def __str__(self) -> str:
        key = f"{spelled(self.path)}: " if self.path else ""
        return f"{self.place.text}: {key}{self.text}"


def spelled(path: KeyPath) -> str:
    """Return a key path the way an override writes it, such as ``augment[0].preset``."""
    return "".join(map(_segment, path)).removeprefix(".")


def _segment(element: str | int) -> str:
    if isinstance(element, int):
        return f"[{element}]"
    short = shortened(element)
    return f".{short}" if _PLAIN.fullmatch(element) else f'."{short}"'


def shortened(text: str, length: int = 60) -> str:
    """Return ``text`` on one line, its middle left out when it is longer than ``length``."""
    line = escape_line(text)
    half = length // 2
    return line if len(line) <= length else f"{line[: half - 1]}…{line[-half:]}"
