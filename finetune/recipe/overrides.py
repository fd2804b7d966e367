"""Overrides of a recipe on the command line: ``train.epochs=3``, ``augment[0].preset=light``, ``~callbacks``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.recipe.document import RENAMED, Document, find_child, make_node
from finetune.recipe.nodes import MAX_DEPTH, Node, Unreadable, check_characters, parse_scalar, parse_yaml
from finetune.recipe.places import KeyPath, Mistake, Place, clip_text, format_path
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

OVERRIDDEN = sys.maxsize  # line number of overrides, so that they sort after every line of a file
_NAME = r"(?:\"[^\"]*\"|[^\s.\[\]=\"'~]+)"
_PATH = re.compile(rf"{_NAME}(?:\.{_NAME}|\[\d{{1,6}}\])*")
_SEGMENT = re.compile(rf"({_NAME})|\[(\d+)\]")
_QUOTES = ("[", "{", '"', "'")
# The key that selects the options of a section, if it is not "use".
SELECTORS: dict[str | int, str] = {"runner": "device"}


class _Refused(Exception):
    """An override cannot be applied; the message is the reason."""


def apply_overrides(
    document: Document,
    overrides: Sequence[str],
    defaults: Mapping[str, Sequence[Any]] | None = None,
    kept: Mapping[str, Collection[str]] | None = None,
) -> Document:
    """Return the document with the overrides applied in order; overrides that fail are added to its mistakes.

    Values that start with a bracket or a quote are YAML, all other values a single YAML word, even if they contain
    ``:``, ``=`` or ``#``. Missing mappings are created; ``defaults`` are the lists to start from if the recipe has
    none. A different ``use`` drops the options of the previous component, except the keys in ``kept``.
    """
    root = document.root.copy()
    mistakes, notes = list(document.mistakes), list(document.notes)
    for number, text in enumerate(overrides):
        place = Place(OVERRIDDEN, number, f"override '{clip_text(text, 80)}'", Path.cwd())
        try:
            _Override(root, place, defaults or {}, kept or {}).carry_out(text)
            deprecated = (new for old, new in RENAMED.items() if changes_key(text, old))
            notes += [Mistake(place, (), f"deprecated key; write '{new}'") for new in deprecated]
        except _Refused as error:
            mistakes.append(Mistake(place, (), str(error)))
        except Unreadable as error:
            mistakes.append(error.mistake)
    return Document(root=root, mistakes=tuple(mistakes), notes=tuple(notes))


def changes_key(text: str, key: str) -> bool:
    """Tell whether an override changes a top-level key or something below it."""
    return split_override(text.removeprefix("~"))[0][0] == key


def split_override(text: str) -> tuple[KeyPath, str | None]:
    """Return the key path and the text after ``=``, which is None without ``=``."""
    match = _PATH.match(text)
    rest = text[match.end() :] if match else text
    if match is None or (rest and not rest.startswith("=")):
        raise _Refused('not KEY=VALUE; write the key like train.epochs, augment[0].preset or a."b c"')
    path = _parse_segments(match[0])
    if len(path) > MAX_DEPTH // 2:
        raise _Refused("the key is nested too deeply; shorten it")
    return path, rest[1:] if rest else None


def parse_keys(text: str) -> KeyPath:
    """Return the keys in ``text``: one key if it is not a valid path, and none if it is empty."""
    return _parse_segments(text) if _PATH.fullmatch(text) else (text,) if text else ()


def _parse_segments(text: str) -> KeyPath:
    return tuple(int(index) if index else name.strip('"') for name, index in _SEGMENT.findall(text))


class _Override:
    """Applies one override to the nodes of a recipe."""

    def __init__(
        self,
        root: Node,
        place: Place,
        defaults: Mapping[str, Sequence[Any]],
        kept: Mapping[str, Collection[str]],
    ) -> None:
        self.root, self.place, self.defaults, self.kept = root, place, defaults, kept

    def carry_out(self, text: str) -> None:
        check_characters(text, self.where)
        path, value = split_override(text.removeprefix("~"))
        path = (RENAMED.get(str(path[0]), path[0]), *path[1:])
        if text.startswith("~"):
            if value is not None:
                raise _Refused("'~' removes a key; leave out the value")
            self.delete(path)
        elif value is None:
            raise _Refused("no '='; write KEY=VALUE, or ~KEY to remove a key")
        else:
            self.set(path, self.value(value.strip()))

    def where(self, line: int, column: int) -> Place:
        return self.place

    def value(self, text: str) -> Node:
        if not text.startswith(_QUOTES):
            return Node(parse_scalar(text), self.place)
        node, mistakes = parse_yaml(text, self.where)
        if mistakes or node is None:
            problem = mistakes[0].text.partition("; ")[0]
            raise Unreadable(self.place, f"invalid value: {problem}; quote it to pass a string")
        return node

    def set(self, path: KeyPath, value: Node) -> None:
        parent = self.parent(path, make=True)
        last = path[-1]
        if isinstance(last, int):
            self.existing(parent, path, len(path) - 1)
        elif not isinstance(parent.value, dict):
            raise _Refused(_describe_mismatch(parent, path, len(path) - 1))
        elif last == SELECTORS.get(path[0], "use"):
            self.leave_options(parent, path, value)
        parent.value[last] = value

    def leave_options(self, section: Node, path: KeyPath, value: Node) -> None:
        """Remove a component's options from its section if a different component is chosen."""
        before = section.value.get(path[-1])
        if before is not None and before.value != value.value:
            kept = self.kept.get(str(path[0]), path[-1:])
            for key in [k for k, node in section.value.items() if k not in kept and node.place[0] != OVERRIDDEN]:
                del section.value[key]

    def delete(self, path: KeyPath) -> None:
        parent = self.parent(path, make=False)
        if path[0] not in self.root.value and len(path) == 1 and path[0] in self.defaults:
            raise _Refused(f"no key '{path[0]}' in the recipe, so the default applies; write {path[0]}=[] for none")
        self.existing(parent, path, len(path) - 1)
        del parent.value[path[-1]]

    def parent(self, path: KeyPath, *, make: bool) -> Node:
        """Return the node that contains the last element of ``path``."""
        node = self.root
        for depth in range(len(path) - 1):
            self.fill(node, path, depth, make=make)
            node = self.existing(node, path, depth)
        return node

    def fill(self, node: Node, path: KeyPath, depth: int, *, make: bool) -> None:
        """Create a missing node: the default list, or an empty mapping if ``make`` is set."""
        element = path[depth]
        if not (isinstance(node.value, dict) and isinstance(element, str)):
            return
        if element in node.value and node.value[element].value is not None:
            return
        if depth == 0 and element in self.defaults:
            node.value[element] = make_node(self.defaults[element], self.place, (element,), [])
        elif make and isinstance(path[depth + 1], str):
            node.value[element] = Node({}, self.place)

    def existing(self, node: Node, path: KeyPath, depth: int) -> Node:
        """Return the node at element ``depth`` of ``path``; raises ``_Refused`` if it does not exist."""
        found = find_child(node, path[depth])
        if found is None:
            raise _Refused(_describe_mismatch(node, path, depth))
        return found


def _describe_mismatch(node: Node, path: KeyPath, depth: int) -> str:
    """Return why ``node`` has no element ``depth`` of ``path``."""
    element, name = path[depth], format_path(path[:depth])
    if isinstance(node.value, dict):
        if isinstance(element, int):
            return f"'{name}' is a mapping, not a list"
        return f"no key '{format_path(path[: depth + 1])}' in the recipe{did_you_mean(element, node.value)}"
    if not isinstance(node.value, list):
        return f"'{name}' is {_describe_value(node.value)}, not a section; override '{name}' itself"
    if isinstance(element, str):
        return f"'{name}' is a list; write {name}[0].{element}"
    return f"'{name}' has {_format_count(len(node.value))}"


def _describe_value(value: Any) -> str:
    return "empty" if value is None else clip_text(repr(value))


def _format_count(length: int) -> str:
    return f"items [0] to [{length - 1}] only" if length > 1 else "item [0] only" if length else "no items"
