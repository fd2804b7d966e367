"""Recipe documents: read from a file, standard input or Python, with the position of each value."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import IO, Any

from finetune.errors import RecipeError
from finetune.recipe.nodes import MAX_DEPTH, Node, parse_yaml
from finetune.recipe.places import KeyPath, Mistake, Place, clip_text
from finetune.suggest import did_you_mean

MAX_BYTES = 250_000
SMALLEST = "dataset: {use: folder, root: photos/}"
MAX_INTEGER = 10**400

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


RENAMED = {"trunk": "inference"}
"""Deprecated top-level keys and their new names; the old ones are accepted until the next release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A recipe as written.

    Attributes:
        root: A mapping.
        mistakes: Mistakes after which reading could continue.
        notes: Deprecated keys, which have been renamed.
    """

    root: Node
    mistakes: tuple[Mistake, ...] = ()
    notes: tuple[Mistake, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """Return the document as plain Python values."""
        values: dict[str, Any] = self.root.plain()
        return values

    def find(self, path: KeyPath) -> Node | None:
        """Return the node at ``path``, or None."""
        node: Node | None = self.root
        for element in path:
            node = find_child(node, element) if node else None
        return node

    def place(self, path: KeyPath) -> Place:
        """Return the place of ``path``, or of its nearest parent if it does not exist."""
        node = self.root
        for element in path:
            below = find_child(node, element)
            if below is None:
                break
            node = below
        return node.place


def find_child(node: Node, element: str | int) -> Node | None:
    """Return the node below ``node`` at a key or an index, or None."""
    if isinstance(node.value, dict) and isinstance(element, str):
        return node.value.get(element)
    if isinstance(node.value, list) and isinstance(element, int) and 0 <= element < len(node.value):
        item: Node = node.value[element]
        return item
    return None


def read_recipe(source: Path | str | Mapping[str, Any]) -> Document:
    """Return the recipe in a file, on standard input (``-``) or in a mapping.

    Keys are always strings. Raises ``RecipeError`` if the recipe cannot be read at all.
    """
    if isinstance(source, Mapping):
        return from_mapping(source)
    if str(source) == "-":
        return parse_bytes(_read_standard_input(), "<stdin>", Path.cwd())
    path = Path(source)
    return read_file(path, str(source), path.absolute().parent.resolve())


def read_file(path: Path, name: str, folder: Path, depth: int = 0) -> Document:
    """Return the recipe in a file that messages refer to as ``name``."""
    name = clip_text(name, 200)
    return parse_bytes(_read_content(path, name), name, folder, depth)


def parse_bytes(content: bytes, name: str, folder: Path, depth: int = 0) -> Document:
    """Return the recipe in the bytes of a file named ``name``; its relative paths start at ``folder``."""

    def where(line: int, column: int) -> Place:
        return Place(line, column, f"{name}:{line}:{column}", folder, depth)

    root, mistakes = parse_yaml(_decode(content, name), where)
    if root is None or root.value is None:
        raise RecipeError(map(str, mistakes) if mistakes else [f"{name}: empty; the smallest recipe is '{SMALLEST}'"])
    return rename_keys(Document(root=_require_mapping(root, mistakes), mistakes=tuple(mistakes)))


def rename_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe in which deprecated keys have their new names, unless those are there as well."""
    renamed = {old: new for old, new in RENAMED.items() if new not in values}
    return {renamed.get(name, name): value for name, value in values.items()}


def rename_keys(document: Document) -> Document:
    """Return a document whose deprecated keys have their new names, with a note for each."""
    values, mistakes, notes = dict(document.root.value), list(document.mistakes), list(document.notes)
    for old, new in RENAMED.items():
        if old not in values:
            continue
        if new in values:
            text = f"deprecated name of '{new}', which is given as well; remove '{old}'"
            mistakes.append(Mistake(values.pop(old).place, (old,), text))
            continue
        notes.append(Mistake(values[old].place, (old,), f"deprecated key; write '{new}'"))
        values = {new if name == old else name: node for name, node in values.items()}
    root = Node(values, document.root.place)
    return Document(root=root, mistakes=tuple(mistakes), notes=tuple(notes))


def _require_mapping(root: Node, mistakes: Sequence[Mistake]) -> Node:
    if isinstance(root.value, dict):
        return root
    kind = "a list" if isinstance(root.value, list) else "text"
    text = f"a recipe is a mapping such as '{SMALLEST}', not {kind}"
    raise RecipeError(map(str, (*mistakes, Mistake(root.place, (), text))))


def _read_standard_input() -> bytes:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise RecipeError(["<stdin>: no standard input available; name a file"])
    return _read_limited(stream, "<stdin>")


def _read_content(path: Path, name: str) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise RecipeError([f"{name}: not a regular file; '-' reads standard input"])
        with path.open("rb") as file:
            return _read_limited(file, name)
    except FileNotFoundError:
        raise RecipeError([f"{name}: no such file{suggest_file(path)}"]) from None
    except OSError as error:
        raise RecipeError([f"{name}: cannot be read: {error.strerror or error}; check who may read it"]) from None
    except ValueError:
        raise RecipeError([f"{name}: not a valid file name; correct the name"]) from None


def _read_limited(file: IO[bytes], name: str) -> bytes:
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RecipeError([f"{name}: larger than {MAX_BYTES // 1000} kB; this does not look like a recipe"])
    return content


def suggest_file(path: Path) -> str:
    """Return the hint for a missing file: the recipe in its folder with the most similar name."""
    try:
        names = [file.name for file in path.parent.glob("*.y*ml")]
    except OSError:
        return ""
    return did_you_mean(path.name, names) if len(names) <= 200 else ""


def _decode(content: bytes, name: str) -> str:
    if content.startswith(_UTF16):
        raise RecipeError([f"{name}: UTF-16 text; save it as UTF-8"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = content.count(b"\n", 0, error.start) + 1, error.start - content.rfind(b"\n", 0, error.start)
        raise RecipeError([f"{name}:{line}:{column}: not UTF-8 text; save it as UTF-8"]) from None


def from_mapping(values: Mapping[str, Any]) -> Document:
    """Return a recipe made in Python; relative paths in it start at the current folder."""
    mistakes: list[Mistake] = []
    root = make_node(values, Place(1, 1, "recipe", Path.cwd()), (), mistakes)
    return rename_keys(Document(root=root, mistakes=tuple(mistakes)))


def make_node(value: Any, place: Place, path: KeyPath, mistakes: list[Mistake]) -> Node:
    """Return ``value`` as nodes that all have the place ``place``; adds unsupported values to ``mistakes``."""
    if len(path) > MAX_DEPTH:
        raise RecipeError([str(Mistake(place, path[:3], f"nested more than {MAX_DEPTH} deep"))])
    if isinstance(value, Mapping):
        return Node(_make_children(value, place, path, mistakes), place)
    if isinstance(value, list | tuple):
        return Node([make_node(item, place, (*path, i), mistakes) for i, item in enumerate(value)], place)
    try:
        return Node(_convert_scalar(value), place)
    except (TypeError, ValueError, OverflowError):
        mistakes.append(Mistake(place, path, f"unsupported value {_describe_value(value)}; use text or a number"))
        return Node(None, place)


def _make_children(value: Mapping[Any, Any], place: Place, path: KeyPath, mistakes: list[Mistake]) -> dict[str, Node]:
    children: dict[str, Node] = {}
    for key, item in value.items():
        name = _convert_key(key)
        if name is None or name in children:
            mistakes.append(
                Mistake(place, path, f"key {_describe_value(key)} is not a string, or is duplicated; rename it")
            )
        else:
            children[name] = make_node(item, place, (*path, name), mistakes)
    return children


def _convert_key(key: Any) -> str | None:
    try:
        return str(_convert_scalar(key)) if isinstance(key, str | int) else None
    except ValueError:
        return None


def _convert_scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | PurePath):
        return _check_text(str(value))
    if isinstance(value, Integral):
        return _convert_integer(int(value))
    if isinstance(value, Real):
        return float(value)
    raise TypeError


def _convert_integer(number: int) -> int:
    if abs(number) >= MAX_INTEGER:
        raise ValueError
    return number


def _check_text(text: str) -> str:
    if "\0" in text:
        raise ValueError
    text.encode()  # raises for a lone surrogate
    return text


def _describe_value(value: Any) -> str:
    return clip_text(ascii(value)) if isinstance(value, str) else f"of type {type(value).__name__}"
