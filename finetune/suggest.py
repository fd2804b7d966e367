"""Hints with near matches, for unknown names in error messages."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest of ``known``, else ``; known: …``, or nothing if it is empty."""
    names = sorted(known)
    near = get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{next(n for n in names if n.lower() == near[0])}'?"
    return f"; known: {', '.join(names)}" if names else ""
