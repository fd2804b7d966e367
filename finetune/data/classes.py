"""One class map for all splits: the training split's, by name."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

COMPARED = 2000  # classes among which a near match is looked for, since that takes as long as all of them together
UNKNOWN = -1


def table(own: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return for each of a split's ``own`` classes its index in ``classes``, or ``UNKNOWN``."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(name, UNKNOWN) for name in own], np.int64).reshape(len(own))


def canonical(name: str) -> str:
    """Return what is left of a name without everything that hardly anyone sees, or means, when reading it."""
    for _, fold in FOLDS:
        name = fold(name)
    return name


def difference(name: str, known: str) -> str:
    """Return in words why two names that look alike are not the same."""
    for text, fold in FOLDS:
        if fold(name) == fold(known):
            return f"which {text}"
    return "which differs in upper and lower case, spaces or Unicode form"


def _visible(name: str) -> str:
    """Return a name without characters of no width: joiners, marks of direction, selectors of a form."""
    return "".join(char for char in name if unicodedata.category(char) != "Cf" and not "\ufe00" <= char <= "\ufe0f")


def _number(name: str) -> str:
    """Return a number without leading zeros, zeros after the point, and with a point for a comma; else the name."""
    found = NUMBER.fullmatch(name)
    if found is None:
        return name
    sign, whole, part = found.groups(default="")
    part = part.rstrip("0")
    return f"{'-' * (sign == '-')}{whole.lstrip('0') or '0'}{'.' * bool(part)}{part}"


NUMBER = re.compile(r"([+-]?)(\d+)(?:[.,](\d+))?")
# Cyrillic, Greek, typographic quotes and dashes, and the Latin letters and signs that look the same.
LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХасеорухіјѕԁΑΒΕΖΗΙΚΜΝΟΡΤΥΧον‘’“”‐‑‒–—−×",
    "ABESIJKMHOPCTYXaceopyxijsdABEZHIKMNOPTYXov''\"\"------x",
)
FOLDS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("is written with other Unicode characters (NFC and NFD)", partial(unicodedata.normalize, "NFC")),
    ("differs in invisible characters", _visible),
    ("differs in spaces at the start or end", str.strip),
    ("differs in the spaces between words", lambda name: " ".join(name.split())),
    ("is written with characters of another width or form", partial(unicodedata.normalize, "NFKC")),
    ("has letters or signs of another script that look the same", lambda name: name.translate(LOOKALIKES)),
    ("is the same number written in another way", _number),
    ("differs in upper and lower case", str.casefold),
)


class Names:
    """The known classes, to be searched for what an unknown one was meant to be."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.alike: defaultdict[str, list[str]] = defaultdict(list)
        for name in classes:
            self.alike[canonical(name)].append(name)

    def near(self, name: str) -> str:
        """Return ``; did you mean 'x'?`` with the difference that is hard to see, if there is a near match."""
        alike = self.alike.get(canonical(name))
        if alike:
            return f"; did you mean '{alike[0]}', {difference(name, alike[0])}?"
        found = get_close_matches(name, self.classes, n=1) if len(self.classes) <= COMPARED else []
        return f"; did you mean '{found[0]}'?" if found else ""

    def doubles(self) -> list[tuple[str, str]]:
        """Return pairs of classes whose names look alike."""
        return [(first, other) for first, *others in self.alike.values() for other in others]
