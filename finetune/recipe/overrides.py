"""Changes to a recipe from the command line: ``train.epochs=3``, ``augment[0].preset=light``, ``~callbacks``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.recipe.document import Document, find_child, make_node
from finetune.recipe.nodes import MAX_DEPTH, Node, Unreadable, check_characters, parse_scalar, parse_yaml
from finetune.recipe.places import KeyPath, Mistake, Place, clip_text, format_path
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

OVERRIDDEN = sys.maxsize  # as the line of a place: after every line of a file
_NAME = r"(?:\"[^\"]*\"|[^\s.\[\]=\"'~]+)"
_PATH = re.compile(rf"{_NAME}(?:\.{_NAME}|\[\d{{1,6}}\])*")
_SEGMENT = re.compile(rf"({_NAME})|\[(\d+)\]")
_QUOTES = ("[", "{", '"', "'")
# The key by which the options of a section are told apart, where it is not "use".
TOLD_BY: dict[str | int, str] = {"runner": "device"}


class _Refused(Exception):
    """An override that cannot be carried out; the message says why."""


def apply_overrides(
    document: Document,
    overrides: Sequence[str],
    defaults: Mapping[str, Sequence[Any]] | None = None,
    kept: Mapping[str, Collection[str]] | None = None,
) -> Document:
    """Return the document with the overrides carried out in order; those that cannot be are its mistakes.

    Values are YAML where they begin with a bracket or a quote, else a YAML word, however many ``:``, ``=`` or ``#``
    are in them. Missing mappings are made on the way; ``defaults`` are the lists that stand where the recipe has none.
    Another ``use`` leaves the options of the one before behind, all but the keys that ``kept`` names for a section.
    """
    root = document.root.copy()
    mistakes = list(document.mistakes)
    for number, text in enumerate(overrides):
        place = Place(OVERRIDDEN, number, f"override '{clip_text(text, 80)}'", Path.cwd())
        try:
            _Override(root, place, defaults or {}, kept or {}).carry_out(text)
        except _Refused as error:
            mistakes.append(Mistake(place, (), str(error)))
        except Unreadable as error:
            mistakes.append(error.mistake)
    return Document(root=root, mistakes=tuple(mistakes))


def split_override(text: str) -> tuple[KeyPath, str | None]:
    """Return the key path and the text after ``=``; None where there is no ``=``."""
    match = _PATH.match(text)
    rest = text[match.end() :] if match else text
    if match is None or (rest and not rest.startswith("=")):
        raise _Refused('not KEY=VALUE; a key is written like train.epochs, augment[0].preset or a."b c"')
    path = _parse_segments(match[0])
    if len(path) > MAX_DEPTH // 2:
        raise _Refused("a key this deep is in no recipe")
    return path, rest[1:] if rest else None


def parse_keys(text: str) -> KeyPath:
    """Return the keys that ``text`` spells; as one key where it spells none, and nothing where it is empty."""
    return _parse_segments(text) if _PATH.fullmatch(text) else (text,) if text else ()


def _parse_segments(text: str) -> KeyPath:
    return tuple(int(index) if index else name.strip('"') for name, index in _SEGMENT.findall(text))


class _Override:
    """One override at work on the nodes of a recipe."""

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
        if text.startswith("~"):
            if value is not None:
                raise _Refused("'~' deletes a key and takes no value")
            self.delete(path)
        elif value is None:
            raise _Refused("no '=' in it; write KEY=VALUE, or ~KEY to delete")
        else:
            self.set(path, self.value(value.strip()))

    def where(self, line: int, column: int) -> Place:
        return self.place

    def value(self, text: str) -> Node:
        if not text.startswith(_QUOTES):
            return Node(parse_scalar(text), self.place)
        node, mistakes = parse_yaml(text, self.where)
        if mistakes or node is None:
            raise Unreadable(self.place, f"the value cannot be read: {mistakes[0].text}; quote it to give it as text")
        return node

    def set(self, path: KeyPath, value: Node) -> None:
        parent = self.parent(path, make=True)
        last = path[-1]
        if isinstance(last, int):
            self.existing(parent, path, len(path) - 1)
        elif not isinstance(parent.value, dict):
            raise _Refused(_describe_mismatch(parent, path, len(path) - 1))
        elif last == TOLD_BY.get(path[0], "use"):
            self.leave_options(parent, path, value)
        parent.value[last] = value

    def leave_options(self, section: Node, path: KeyPath, value: Node) -> None:
        """Take the file's options of a component out of its section when another is chosen in its place."""
        before = section.value.get(path[-1])
        if before is not None and before.value != value.value:
            kept = self.kept.get(str(path[0]), path[-1:])
            for key in [k for k, node in section.value.items() if k not in kept and node.place[0] != OVERRIDDEN]:
                del section.value[key]

    def delete(self, path: KeyPath) -> None:
        parent = self.parent(path, make=False)
        if path[0] not in self.root.value and len(path) == 1 and path[0] in self.defaults:
            raise _Refused(f"no key '{path[0]}' in the recipe, which means the default; for none write {path[0]}=[]")
        self.existing(parent, path, len(path) - 1)
        del parent.value[path[-1]]

    def parent(self, path: KeyPath, *, make: bool) -> Node:
        """Return the node that holds the last element of ``path``."""
        node = self.root
        for depth in range(len(path) - 1):
            self.fill(node, path, depth, make=make)
            node = self.existing(node, path, depth)
        return node

    def fill(self, node: Node, path: KeyPath, depth: int, *, make: bool) -> None:
        """Put a default list, or an empty mapping if allowed, where there is nothing."""
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
        """Return the node at element ``depth`` of ``path``, or refuse."""
        found = find_child(node, path[depth])
        if found is None:
            raise _Refused(_describe_mismatch(node, path, depth))
        return found


def _describe_mismatch(node: Node, path: KeyPath, depth: int) -> str:
    """Return why ``node`` has nothing at element ``depth`` of ``path``."""
    element, name = path[depth], format_path(path[:depth])
    if isinstance(node.value, dict):
        if isinstance(element, int):
            return f"'{name}' is a mapping, not a list"
        return f"no key '{format_path(path[: depth + 1])}' in the recipe{did_you_mean(element, node.value)}"
    if not isinstance(node.value, list):
        return f"'{name}' is {_describe_value(node.value)}, so there is nothing below it"
    if isinstance(element, str):
        return f"'{name}' is a list; write {name}[0].{element}"
    return f"'{name}' has {_format_count(len(node.value))}"


def _describe_value(value: Any) -> str:
    return "empty" if value is None else clip_text(repr(value))


def _format_count(length: int) -> str:
    return f"items [0] to [{length - 1}] only" if length > 1 else "item [0] only" if length else "no items"
