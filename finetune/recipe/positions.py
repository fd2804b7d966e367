"""Stages by position: replaces ``last``, ``last 2`` and ``all`` in the options of a freezing policy by stage names.

The engine replaces positions before a freezing policy receives its options, so every policy accepts them. In a list
or as the key of a mapping, a position means all stages that it covers; elsewhere it means the lowest of them, as in
"from this stage on".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel

from finetune.components import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from finetune.recipe.places import KeyPath

M = TypeVar("M", bound=BaseModel)

ALL, LAST = "all", "last"
_POSITION = re.compile(r"last(?: (\d{1,9}))?")
_LIKE_A_POSITION = re.compile(r"\s*([A-Za-z]+)(?:[\s_-]*(\d{1,9}))?\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongPosition:
    """A misspelt position, or one that the network does not have, with its key path below the section."""

    path: KeyPath
    finding: Finding


@dataclass(slots=True)
class Resolution:
    """The result of replacing positions: mistakes, and the original paths of list items by their new paths."""

    stages: tuple[str, ...]
    wrong: list[WrongPosition] = field(default_factory=list)
    moved: dict[KeyPath, KeyPath] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> KeyPath:
        """Return the path in the recipe for a ``path`` in the options with names."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.moved:
                return (*self.moved[path[:end]], *path[end:])
        return path


def replace_positions(options: M, stages: tuple[str, ...]) -> tuple[M, Resolution]:
    """Return options with names in place of positions; ``stages`` are the stages of the network, with the head last.

    Values that are literals of an option, such as ``Literal["last"]``, have a meaning of their own and are kept.
    """
    resolution = Resolution(stages)
    return _replace_in_model(options, (), (), resolution), resolution


def _replace_in_model(model: M, written: KeyPath, now: KeyPath, to: Resolution) -> M:
    changed = {}
    for name, about in type(model).model_fields.items():
        value, key = getattr(model, name), about.alias or name
        new = _Walk(to, about.annotation).value(value, (*written, key), (*now, key))
        if new is not value:
            changed[name] = new
    return model.model_copy(update=changed) if changed else model


class _Walk:
    """Replaces positions in the value of one option."""

    def __init__(self, to: Resolution, annotation: Any) -> None:
        self.to = to
        self.literals = {*_find_literals(annotation)}
        self.tuples = {*_find_fixed_lengths(annotation)}

    def value(self, value: Any, written: KeyPath, now: KeyPath) -> Any:
        """Return a value with names in place of positions."""
        if isinstance(value, BaseModel):
            return _replace_in_model(value, written, now, self.to)
        if type(value) is str:
            names = self.names(value, written)
            return names[0] if names else value
        if isinstance(value, dict):
            return self.mapping(value, written, now)
        if type(value) in (list, tuple, set, frozenset):
            return self.items(value, written, now)
        return value

    def items(self, values: Any, written: KeyPath, now: KeyPath) -> Any:
        """Return a list or set in which each position is replaced by all names that it covers."""
        one_for_one = type(values) is tuple and len(values) in self.tuples
        found: list[Any] = []
        for index, item in enumerate(values):
            at = (*written, index)
            if type(item) is str and not one_for_one:
                new = self.names(item, at) or (item,)
            else:
                new = (self.value(item, at, (*now, len(found))),)
            for name in new:
                self.to.moved[*now, len(found)] = (*written, index)
                found.append(name)
        return values if found == [*values] else type(values)(found)

    def mapping(self, values: dict[Any, Any], written: KeyPath, now: KeyPath) -> dict[Any, Any]:
        """Return a mapping with names in place of positions; a key that is a name wins over a position."""
        found: dict[Any, Any] = {}
        for key, item in values.items():
            at = (*written, str(key))
            names = self.names(key, at) if type(key) is str else None
            for name in names or (key,):
                if names is None or name not in values:
                    self.to.moved[*now, str(name)] = at
                    found[name] = self.value(item, at, (*now, str(name)))
        same = [*found] == [*values] and all(found[key] is values[key] for key in found)
        return values if same else found

    def names(self, text: str, at: KeyPath) -> tuple[str, ...] | None:
        """Return the stages that a position covers, lowest first; None if the text is not a position."""
        stages = self.to.stages
        if text in stages or text in self.literals:
            return None
        if text == ALL:
            return stages
        if found := _POSITION.fullmatch(text):
            count, most = int(found[1] or 1), len(stages) - 1
            if 1 <= count <= most:
                return stages[most - count : most]
            self.complain(
                at, f"no position '{text}'; the network has {_describe_stages(stages[:-1])}; {_suggest_positions(most)}"
            )
        elif meant := _guess_position(text, stages):
            self.complain(at, f"no position or stage named '{text}'; did you mean '{meant}'?")
        return None

    def complain(self, at: KeyPath, text: str) -> None:
        """Record a wrong position."""
        self.to.wrong.append(WrongPosition(path=at, finding=Finding(severity="error", subject="", text=text)))


def _describe_stages(stages: tuple[str, ...]) -> str:
    """Return the number of stages and their names, shortened if there are many."""
    names = ", ".join(stages) if len(stages) <= 8 else f"{', '.join(stages[:3])} … {stages[-1]}"
    return f"{len(stages)} stage{'s' if len(stages) > 1 else ''} below the head ({names})"


def _suggest_positions(most: int) -> str:
    return f"write 'last' to 'last {most}', 'all' or 'head'" if most > 1 else "write 'last', 'all' or 'head'"


def _guess_position(text: str, stages: Iterable[str]) -> str | None:
    """Return the position of which a text is probably a misspelling; None for names and patterns of stages."""
    found = _LIKE_A_POSITION.fullmatch(text)
    if found is None or any(fnmatchcase(stage, text) or stage.lower() == text.lower() for stage in stages):
        return None
    word, number = found[1].lower(), found[2]
    if number is None:
        return word if word in (ALL, LAST) else None
    return f"{LAST} {number}" if get_close_matches(word, [LAST], cutoff=0.6) else None


def _find_literals(annotation: Any) -> Iterator[Any]:
    """Yield the literal values in an annotation, at any depth."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
        return
    for each in get_args(annotation):
        yield from _find_literals(each)


def _find_fixed_lengths(annotation: Any) -> Iterator[int]:
    """Yield the lengths of fixed-length tuples in an annotation, at any depth."""
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple and Ellipsis not in arguments:
        yield len(arguments)
    for each in arguments:
        yield from _find_fixed_lengths(each)
