"""Escaping of text for people: names with any characters cannot control a terminal or break a line.

Only printed text is escaped. Data (JSON, CSV, ``data.json``, packs) keeps every name unchanged.
"""

from __future__ import annotations

import unicodedata

JOINER = "\u200d"  # joins emoji, and letters of some scripts


def escape(text: str) -> str:
    """Return ``text`` with control characters, direction marks and undecodable bytes escaped; line ends are kept."""
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or _is_harmless(text, i) else _escape_character(c) for i, c in enumerate(text))


def escape_line(text: str) -> str:
    """Return ``text`` as ``escape`` does, on one line."""
    return escape(text).replace("\n", "\\n")


def _is_harmless(text: str, index: int) -> bool:
    character = text[index]
    if character == JOINER:  # between ASCII letters it could only hide text
        return index > 0 and not text[index - 1].isascii()
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape_character(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
