"""YAML nodes with positions; a document cannot run code or exhaust the memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.scanner import Scanner, ScannerError

from finetune.recipe.places import KeyPath, Mistake, Place, clip_text

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = re.compile(r"[\w/~]([\w./~+ -]*[\w./~+-])?")  # needs no quotes anywhere
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_MAX_DIGITS = 400  # more than any float has; Python refuses to convert very long ones


def parse_scalar(text: str) -> Any:
    """Return the value of unquoted ``text``: null, a boolean, a number or the text itself.

    Words such as ``no`` and numbers such as ``010``, ``1_000`` and ``1:30`` stay strings: they have another meaning
    in YAML 1.1.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return _parse_based_integer(text)


def _parse_based_integer(text: str) -> int | str:
    for prefix, base in (("0x", 16), ("0o", 8)):
        if text.startswith(prefix) and text[2:].isalnum():
            try:
                return int(text[2:], base)
            except ValueError:
                return text
    return text


def dumps(values: dict[str, Any]) -> str:
    """Return ``values`` as YAML: keys that are whole numbers without quotes, lists of scalars on one line."""
    stream = StringIO()
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.width = 1 << 16
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump(_convert_keys(values), stream)
    return stream.getvalue()


def _convert_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {_convert_key(key): _convert_keys(child) for key, child in value.items()}
    return [_convert_keys(child) for child in value] if isinstance(value, list) else value


def _convert_key(key: str) -> int | str:
    number = parse_scalar(key)
    return number if type(number) is int and str(number) == key else key


class _Representer(SafeRepresenter):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(representer: SafeRepresenter, text: str) -> Any:
    style = None if parse_scalar(text) is text and _WORDS.fullmatch(text) else '"'
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_list(representer: SafeRepresenter, items: list[Any]) -> Any:
    nested = any(isinstance(item, dict | list) for item in items)
    return representer.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=not nested)


_Representer.add_representer(str, _represent_text)
_Representer.add_representer(list, _represent_list)


MAX_NODES = 10_000
MAX_DEPTH = 64

_TOO_DEEP = f"nested more than {MAX_DEPTH} deep"

Event = Any  # ruamel.yaml sets the attributes of its events without declaring them
Where = Callable[[int, int], Place]

_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(slots=True)
class Node:
    """A scalar, a mapping of nodes or a list of nodes, with the place of its key or item."""

    value: Any
    place: Place

    def plain(self) -> Any:
        """Return the value as plain Python, without places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def copy(self) -> Node:
        """Return a deep copy."""
        if isinstance(self.value, dict):
            return Node({key: child.copy() for key, child in self.value.items()}, self.place)
        if isinstance(self.value, list):
            return Node([child.copy() for child in self.value], self.place)
        return Node(self.value, self.place)

    def height(self) -> int:
        """Return the number of levels below this node."""
        children = self.value.values() if isinstance(self.value, dict) else self.value
        return max((child.height() + 1 for child in children), default=0) if isinstance(self.value, dict | list) else 0


class Unreadable(Exception):
    """Reading cannot continue: not YAML, too many values, or nested too deeply."""

    def __init__(self, place: Place, text: str) -> None:
        self.mistake = Mistake(place, (), text)
        super().__init__(str(self.mistake))


def parse_yaml(text: str, where: Where) -> tuple[Node | None, list[Mistake]]:
    """Return the root of the only document in ``text``, and its mistakes.

    ``where`` turns a line and a column, counted from 1, into a place. The root is None if the document is empty or
    reading stopped at the last mistake.
    """
    reading = _Reading(where, _read_events(text, where))
    try:
        check_characters(text, where)
        return reading.document(), reading.mistakes
    except Unreadable as error:
        return None, [*reading.mistakes, error.mistake]


def check_characters(text: str, where: Where) -> None:
    """Raise ``Unreadable`` at the first character that YAML does not allow, such as NUL."""
    wrong = _NOT_TEXT.search(text)
    if wrong:
        place = where(*_locate(text, wrong.start()))
        raise Unreadable(place, f"character U+{ord(wrong[0]):04X} is not allowed; remove it")


def _locate(text: str, index: int) -> tuple[int, int]:
    before = text[:index]
    return before.count("\n") + 1, index - before.rfind("\n")


def _read_events(text: str, where: Where) -> Iterator[Event]:
    at = where(1, 1)
    try:
        yaml = YAML(typ="safe", pure=True)
        yaml.Scanner = _Scanner
        for event in yaml.parse(text):
            at = _make_place(event.start_mark, where)
            yield event
    except MarkedYAMLError as error:
        raise _describe_syntax_error(error, where) from None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # ruamel.yaml raises these too, for example for an escape beyond Unicode
        raise Unreadable(at, f"invalid YAML here or below: {error}; check quotes and escapes") from None


class _Scanner(Scanner):
    """A scanner that stops at brackets that are nested too deeply: it reads far ahead, in quadratic time."""

    def fetch_flow_collection_start(self, *args: Any, **kwargs: Any) -> None:
        if self.flow_level >= MAX_DEPTH:
            raise ScannerError(None, None, _TOO_DEEP, self.reader.get_mark())
        super().fetch_flow_collection_start(*args, **kwargs)


def _make_place(mark: Any, where: Where) -> Place:
    return where(mark.line + 1, mark.column + 1)


_SYNTAX = (
    (_TOO_DEEP, _TOO_DEEP),
    ("'\\t' that cannot start", "a tab character; use spaces"),
    ("that cannot start any token", "{problem}; put the text in quotes"),
    ("mapping values are not allowed", "misplaced ':'; check the indentation, the quotes and the space after ':'"),
    ("expected '<document start>'", "inconsistent indentation; check indentation and brackets"),
    ("expected <block end>", "inconsistent indentation; align it with the lines above"),
    ("could not find expected ':'", "key without ':'; add ':' after it"),
    ("found undefined tag handle", "tags (!name) are not supported; remove the tag"),
)


def _describe_syntax_error(error: MarkedYAMLError, where: Where) -> Unreadable:
    problem = str(error.problem or error.context or "not YAML")
    for part, text in _SYNTAX:
        if part in problem:
            return Unreadable(
                _make_place(error.problem_mark or error.context_mark, where), text.format(problem=problem)
            )
    if "end of stream" in problem and error.context_mark:
        return Unreadable(_make_place(error.context_mark, where), "unclosed quote; add the closing quote")
    if "<stream end>" in problem and error.context_mark:
        return Unreadable(_make_place(error.context_mark, where), "unclosed bracket; add the closing bracket")
    return Unreadable(_make_place(error.problem_mark or error.context_mark, where), f"not YAML: {problem}")


@dataclass(slots=True)
class _Reading:
    """Reads the events of one document into nodes."""

    where: Where
    events: Iterator[Event]
    mistakes: list[Mistake] = field(default_factory=list)
    anchors: dict[str, tuple[Node, int] | None] = field(default_factory=dict)
    nodes: int = 0

    def document(self) -> Node | None:
        root = None
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    self.note(event, (), "a second document starts here; a recipe is one document")
                    break
                self.version(event)
                first = next(self.events)
                root = self.node(first, (), self.at(first))
        return root

    def at(self, event: Event) -> Place:
        return _make_place(event.start_mark, self.where)

    def note(self, event: Event, path: KeyPath, text: str) -> None:
        self.mistakes.append(Mistake(self.at(event), path, text))

    def version(self, event: Event) -> None:
        if event.version and tuple(event.version) != (1, 2):
            self.note(event, (), "unsupported YAML version; recipes are YAML 1.2: remove the line '%YAML'")

    def node(self, event: Event, path: KeyPath, place: Place) -> Node:
        self.nodes += 1
        self.check(event, len(path))
        if isinstance(event, AliasEvent):
            return Node(self.alias(event, path), place)
        before = self.nodes
        if event.anchor:
            self.anchors[event.anchor] = None
        node = Node(self.value(event, path), place)
        if event.anchor:
            self.anchors[event.anchor] = node, self.nodes - before
        return node

    def check(self, event: Event, depth: int) -> None:
        if self.nodes > MAX_NODES:
            raise Unreadable(self.at(event), f"more than {MAX_NODES} keys and values, each alias (*name) written out")
        if depth > MAX_DEPTH:
            raise Unreadable(self.at(event), _TOO_DEEP)

    def alias(self, event: Event, path: KeyPath) -> Any:
        name = event.anchor
        if name not in self.anchors:
            self.note(
                event, path, f"no anchor '&{clip_text(name)}' above '*{clip_text(name)}'; define it, or quote the text"
            )
            return None
        known = self.anchors[name]
        if known is None:
            self.note(event, path, f"alias '*{clip_text(name)}' contains itself")
            return None
        anchored, size = known
        self.nodes += size
        self.check(event, len(path) + anchored.height())
        return anchored.copy().value

    def value(self, event: Event, path: KeyPath) -> Any:
        if event.tag:
            self.tag(event, path)
        if isinstance(event, MappingStartEvent):
            return self.mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self.sequence(path)
        if event.style is None and not event.tag:
            return parse_scalar(event.value)
        return self.text(event, path)

    def tag(self, event: Event, path: KeyPath) -> None:
        tag = clip_text(event.tag.replace("tag:yaml.org,2002:", "!!"))
        self.note(event, path, f"tag '{tag}' is not supported; write plain text, numbers, lists and mappings")

    def text(self, event: Event, path: KeyPath) -> str:
        try:
            text = str(event.value).encode("utf-16", "surrogatepass").decode("utf-16")  # joins JSON's \ud83d\ude00
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            self.note(event, path, "invalid escape in quotes; remove it, or use single quotes")
            return ""
        return text

    def sequence(self, path: KeyPath) -> list[Node]:
        items: list[Node] = []
        for event in self.events:
            if isinstance(event, SequenceEndEvent):
                break
            items.append(self.node(event, (*path, len(items)), self.at(event)))
        return items

    def mapping(self, path: KeyPath) -> dict[str, Node]:
        children: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for event in self.events:
            if isinstance(event, MappingEndEvent):
                break
            key = self.key(event, path)
            child = self.node(next(self.events), (*path, key or ""), self.at(event))
            if key in children:
                self.note(event, (*path, key), f"duplicate key; the first one is on line {lines[key]}")
            elif key is not None:
                children[key], lines[key] = child, event.start_mark.line + 1
        return children

    def key(self, event: Event, path: KeyPath) -> str | None:
        """Return a key as text, so that ``1``, ``true`` and ``2024-01-01`` can name a class; None for a merge key."""
        if not isinstance(event, ScalarEvent):
            raise Unreadable(self.at(event), "a key must be a string, not a list, a mapping or an alias")
        node = self.node(event, path, self.at(event))
        if event.style is None and event.value == "<<":
            self.note(event, path, "merge keys (<<) are not supported; write out the keys")
            return None
        return str(node.value) if event.style else str(event.value)
