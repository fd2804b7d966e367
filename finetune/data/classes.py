"""One class map for all splits: the training split's, by name."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

COMPARED = 2000  # classes among which a near match is looked for, since that takes as long as all of them together
UNKNOWN = -1


def table(own: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return for each of a split's ``own`` classes its index in ``classes``, or ``UNKNOWN``."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(name, UNKNOWN) for name in own], np.int64).reshape(len(own))


def canonical(name: str) -> str:
    """Return what is left of a name when case, spaces around it and ways to write it in Unicode are taken away."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def difference(name: str, known: str) -> str:
    """Return in words why two names that look alike are not the same."""
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", known):
        return "which is written with other Unicode characters (NFC and NFD)"
    if name.strip() == known.strip():
        return "which differs in spaces at the start or end"
    if name.casefold() == known.casefold():
        return "which differs in upper and lower case"
    return "which differs in upper and lower case, spaces or Unicode form"


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
