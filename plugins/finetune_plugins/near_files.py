"""Near matches of paths: finds the file that a path in a table was meant to refer to."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from finetune import image_endings

if TYPE_CHECKING:
    from collections.abc import Callable

    Fold = Callable[[str], str]


class NearFiles:
    """Finds files whose paths differ from a given one in details that people and programs often change unnoticed.

    Each folder is listed once, however many paths lead into it.
    """

    def __init__(self) -> None:
        self._listed: dict[tuple[Fold, str], dict[str, list[str]]] = {}

    def same(self, path: str) -> str:
        """Return the only file whose path has the same characters in a different Unicode form (NFC, NFD), or ''."""
        found = self._walk(path, _compose_name)
        return found[0] if len(found) == 1 else ""

    def near(self, path: str, root: Path) -> tuple[str, str]:
        """Return a file that ``path`` may mean and the difference; two empty strings if there is no such file.

        ``path`` starts from the folder ``root``.
        """
        for given, difference in _list_readings(path):
            for fold, more in FOLDS:
                whole = os.path.normpath(root / given)
                if found := [each for each in self._walk(whole, fold) if os.path.isfile(each)]:
                    return found[0], " and ".join(filter(None, (difference, more)))
        return "", ""

    def _walk(self, path: str, fold: Fold) -> list[str]:
        """Return the entries whose folded names equal the folded names of a path.

        If ``fold`` drops endings, it does so only for the last name.
        """
        parts = Path(path).parts
        found = [parts[0]]
        for place, part in enumerate(parts[1:], 2):
            last = place == len(parts)
            how = fold if last or fold is not _strip_ending else _fold_name
            exact = [os.path.join(folder, part) for folder in found if not last]
            if there := [each for each in exact if os.path.isdir(each)]:
                found = there
                continue
            found = [os.path.join(folder, name) for folder in found for name in self._names(folder, how, part)]
        return found

    def _names(self, folder: str, fold: Fold, part: str) -> list[str]:
        """Return the entries of a folder whose folded names equal the folded ``part``."""
        key = (fold, folder)
        if key not in self._listed:
            self._listed[key] = {}
            try:
                entries = sorted(os.listdir(folder))
            except OSError:
                entries = []
            for entry in entries:
                self._listed[key].setdefault(fold(entry), []).append(entry)
        return self._listed[key].get(fold(part), [])


def _list_readings(path: str) -> list[tuple[str, str]]:
    """Return the possible meanings of a path, each with its difference."""
    plain = path.removeprefix("file://")
    readings = [(path, "")]
    if "\\" in path:
        readings.append((path.replace("\\", "/"), "has / between folders"))
    if "%" in plain or plain != path:
        readings.append((unquote(plain), "is not written as an address"))
    if path.startswith("/"):
        readings.append((path.lstrip("/"), "does not start with /"))
    return readings


def _compose_name(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _lower_name(name: str) -> str:
    return _compose_name(name).casefold()


def _fold_name(name: str) -> str:
    """Return a name without differences in case, surrounding spaces, Unicode form and invisible characters."""
    visible = "".join(char for char in unicodedata.normalize("NFKC", name) if unicodedata.category(char) != "Cf")
    return " ".join(visible.split()).casefold()


def _strip_ending(name: str) -> str:
    """Return an image's folded name without its ending."""
    stem, ending = os.path.splitext(name)
    return _fold_name(stem if ending.lower() in image_endings() else name)


FOLDS: tuple[tuple[Fold, str], ...] = (
    (_compose_name, ""),
    (_lower_name, "differs in upper and lower case"),
    (_fold_name, "differs in spaces, invisible characters or their width"),
    (_strip_ending, "differs in its ending"),
)
