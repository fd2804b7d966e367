"""Usual names of split folders: ``training_set``, ``Test_Images``, ``flowers-val`` and the like."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from finetune.components import Split

Role = Literal["train", "valid", "test", "eval", "holdout"]

WORDS: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainval"),
    "valid": ("valid", "val", "validation", "validate", "validating", "dev", "devel"),
    "test": ("test", "testing", "tst"),
    "eval": ("eval", "evaluation"),
    "holdout": ("holdout", "heldout"),
}
ENDS = r"(?:sets?|data|dataset|images?|imgs?|photos?|pics?|pictures?|splits?|folder|dir|part)?"
EXACT: dict[str, Split] = {
    **{"train": "train", "training": "train"},
    **{"valid": "valid", "val": "valid", "validation": "valid"},
    **{"test": "test", "testing": "test"},
}
# What else can be the second part to measure on, the first that is not taken yet.
FLEXIBLE: dict[Role, tuple[Split, Split]] = {"eval": ("valid", "test"), "holdout": ("test", "valid")}
PATTERNS = {role: re.compile(rf"(?:{'|'.join(words)}){ENDS}") for role, words in WORDS.items()}
PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def role_of(name: str) -> Role | None:
    """Return which split a folder's name means, by the complete words in it; None for none or for several."""
    words = {*words_of(name), name.lower()}  # the complete name too: tEsT
    found = {role for word in words for role, pattern in PATTERNS.items() if pattern.fullmatch(word)}
    if found == {"train", "valid"}:
        return "train"  # trained on once the hyperparameters are chosen
    return found.pop() if len(found) == 1 else None


def is_split_name(name: str) -> bool:
    """Return whether a name means a split and has no other word, such as ``test_images``."""
    words = words_of(name)
    rest = [word for word in words if not any(pattern.fullmatch(word) for pattern in PATTERNS.values())]
    return role_of(name) is not None and all(re.fullmatch(ENDS, word) for word in rest)


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case; capitals, digits, spaces and punctuation divide them."""
    words = [word.lower() for word in PIECES.findall(name)]
    joined = [f"{first}{second}" for first, second in itertools.pairwise(words)]
    return words + [word for word in joined if word in ("holdout", "heldout")]


def is_usual(name: str, split: Split) -> bool:
    """Return whether a name is one that needs no explanation, such as ``train`` or ``val``."""
    return EXACT.get(name.lower()) == split
