"""Text for people: names that may hold anything, shown so that they cannot steer a terminal or break a line.

Only what is printed is escaped. Data (JSON, CSV, ``data.json``, packs) keeps every name as it is.
"""

from __future__ import annotations

import unicodedata

JOINER = "\u200d"  # joins emoji, and letters of some scripts


def escape(text: str) -> str:
    """Return ``text`` with control characters, marks of direction and undecodable bytes as escapes; lines stay."""
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or _is_harmless(text, i) else _escaped(c) for i, c in enumerate(text))


def escape_line(text: str) -> str:
    """Return ``text`` as ``escape`` does, on one line."""
    return escape(text).replace("\n", "\\n")


def _is_harmless(text: str, index: int) -> bool:
    character = text[index]
    if character == JOINER:  # between ASCII letters it would only hide
        return index > 0 and not text[index - 1].isascii()
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
