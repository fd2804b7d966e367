"""Layouts of weights files: translates names and axes to those of a backbone, completely or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from finetune.components import Backbone, Layout
from finetune.errors import WeightsError
from finetune.weights.formats.tensorfile import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from finetune.weights.formats.tensorfile import Index


def to_own(index: Index, layout: Layout | None) -> Index:
    """Transpose the tensors of a file to the axes of the network, by the rules of the file's layout."""
    if layout is None or not layout.transpose:
        return index
    return replace(index, records={name: transpose_record(name, each, layout) for name, each in index.records.items()})


def to_file(name: str, record: Record, layout: Layout | None) -> Record:
    """Transpose a tensor of the network to the axes of the layout; ``name`` is its name in the file."""
    return record if layout is None else transpose_record(name, record, layout, back=True)


def transpose_record(name: str, record: Record, layout: Layout, *, back: bool = False) -> Record:
    """Return a tensor that is transposed when it is read; unchanged if the layout has no rule for it."""
    axes = next((axes for pattern, axes in layout.transpose if re.fullmatch(pattern, name)), None)
    if axes is None:
        return record
    if sorted(axes) != list(range(len(record.shape))):
        rank = len(record.shape)
        wrong = f"{name!r} has {rank} axes, but the layout '{layout.name}' reorders them as {axes}"
        raise WeightsError(f"{wrong}; correct its transpose, or use a file of this network")
    order = tuple(np.argsort(axes).tolist()) if back else tuple(axes)
    return Record(
        record.dtype, tuple(record.shape[axis] for axis in order), partial(_transpose_contents, record, order)
    )


def _transpose_contents(record: Record, order: tuple[int, ...]) -> bytes:
    numbers = np.frombuffer(record.content(), f"V{record.itemsize}").reshape(record.shape)
    return numbers.transpose(order).tobytes()


def join_pieces(index: Index, backbone: Backbone) -> Index:
    """Join the pieces of tensors, and transpose them to the axes of the network, by the backbone's layouts.

    Pieces are joined by the first layout that finds some. Raises ``WeightsError`` if a piece is missing or differs
    from the others, or if a tensor does not have the axes to transpose.
    """
    for layout in backbone.layouts:
        if pieces := find_pieces(index.records, layout):
            index = merge_pieces(index, pieces)
            break
    return to_own(index, find_layout(index.records, backbone))


def merge_pieces(index: Index, pieces: dict[str, tuple[str, ...]]) -> Index:
    """Join pieces on their first axis, that of output channels."""
    records = dict(index.records)
    for joined, names in pieces.items():
        parts = [records.pop(name) for name in names]
        if len({(part.dtype, part.shape) for part in parts}) > 1 or joined in records or not parts[0].shape:
            raise WeightsError(f"the pieces of {joined!r} do not match; copy the file again")
        rows, *rest = parts[0].shape
        records[joined] = Record(parts[0].dtype, (rows * len(parts), *rest), partial(_join_contents, parts))
    return replace(index, records=records, merged={joined: len(names) for joined, names in pieces.items()})


def find_pieces(names: Iterable[str], layout: Layout) -> dict[str, tuple[str, ...]]:
    """Return the names of the pieces of each tensor that the layout knows, in the order of their numbers."""
    if layout.pieces is None:
        return {}
    pattern, joined = layout.pieces
    numbered: dict[str, dict[int, str]] = {}
    for name in names:
        match = re.fullmatch(pattern, name)
        if match is None or is_ignored(name, layout):
            continue
        number = match[match.re.groups]
        own = match.expand(joined)
        if number.isascii() and len(number) < 7 and rename(own, layout.rules) is not None:
            numbered.setdefault(own, {})[int(number)] = name
    for own, each in numbered.items():
        missing = next((number for number in range(len(each)) if number not in each), None)
        if missing is not None:
            raise WeightsError(f"{own!r} lacks piece {missing} of {max(each) + 1}; copy the file again")
    return {own: tuple(each[number] for number in sorted(each)) for own, each in numbered.items()}


def _join_contents(parts: Sequence[Record]) -> bytearray:
    return bytearray().join(part.content() for part in parts)


OWN = "finetune"
HEAD = "head."

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation(Generic[T]):
    """A file by the backbone's own names.

    ``tensors`` are the entries that the network has; ``ignored`` are entries that do not belong to a network;
    ``unexpected`` are the parts of the classifier that this network's head does not have.
    """

    layout: str
    tensors: dict[str, T]
    ignored: tuple[str, ...] = ()
    unexpected: dict[str, T] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


class Misfit(WeightsError):
    """A file that does not fit a network, with the missing and the unexpected names in the nearest layout."""

    def __init__(self, text: str, naming: Naming, expected: Collection[str]) -> None:
        super().__init__(text)
        self.layout = naming.layout.name
        self.missing, self.unexpected = naming.missing(expected), naming.unexpected(expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Result of applying a layout to a file's names: own name to file name, and the names without a place."""

    layout: Layout
    names: dict[str, str]
    ignored: tuple[str, ...]
    unplaced: tuple[str, ...]

    def missing(self, expected: Iterable[str]) -> tuple[str, ...]:
        """Return the names that the file lacks, except those of the classifier."""
        return tuple(name for name in expected if name not in self.names and not name.startswith(HEAD))

    def unexpected(self, expected: Collection[str]) -> tuple[str, ...]:
        """Return the names that the network lacks, by the file's names, except those of the classifier."""
        strange = (n for own, n in self.names.items() if own not in expected and not own.startswith(HEAD))
        return (*self.unplaced, *strange)


def translate(tensors: Mapping[str, T], expected: Collection[str], backbone: Backbone) -> Translation[T]:
    """Rename a file's entries by the first layout that fits completely: the own one, then the backbone's in order.

    ``expected`` are the names of the network's parameters. A layout fits if it has a place for every entry, and the
    entries are exactly the parameters; the classifier, ``head.…``, may differ. Raises ``Misfit`` with the differences
    in the nearest layout.
    """
    tried = apply_layouts(tensors, backbone)
    for naming in tried:
        if not naming.missing(expected) and not naming.unexpected(expected):
            return Translation(
                layout=naming.layout.name,
                tensors={own: tensors[name] for own, name in naming.names.items() if own in expected},
                ignored=naming.ignored,
                unexpected={own: tensors[name] for own, name in naming.names.items() if own not in expected},
                options=naming.layout.options,
            )
    nearest = min(tried, key=lambda n: len(n.missing(expected)) + len(n.unexpected(expected)))
    lacks = format_names("lacks", nearest.missing(expected))
    extra = format_names("has no place for", nearest.unexpected(expected))
    differences = "; ".join(part for part in (lacks, extra) if part)
    text = (
        f"these are not the weights of '{backbone.name}': in the nearest layout, '{nearest.layout.name}', it "
        f"{differences}; use a file of this network, or backbone.weights=none for a random start"
    )
    raise Misfit(text, nearest, expected)


def find_layout(names: Collection[str], backbone: Backbone) -> Layout | None:
    """Return the first layout that has a place for every name, None if there is none; needs no network."""
    return next((naming.layout for naming in apply_layouts(names, backbone) if not naming.unplaced), None)


def apply_layouts(names: Collection[str], backbone: Backbone) -> list[Naming]:
    """Apply each layout to some names, the own layout first."""
    stages = "|".join(re.escape(stage) for stage in (*backbone.stages, "head"))
    own = Layout(name=OWN, rules=((rf"(?:{stages})\..+", r"\g<0>"),))
    return [apply_layout(names, layout) for layout in (own, *backbone.layouts)]


def apply_layout(names: Collection[str], layout: Layout) -> Naming:
    """Apply a layout to some names; a name whose own name is already taken has no place."""
    found: dict[str, str] = {}
    ignored, unplaced = [], []
    for name in names:
        if is_ignored(name, layout):
            ignored.append(name)
            continue
        own = rename(name, layout.rules)
        if own is None or own in found:
            unplaced.append(name)
        else:
            found[own] = name
    return Naming(layout=layout, names=found, ignored=tuple(ignored), unplaced=tuple(unplaced))


def is_ignored(name: str, layout: Layout) -> bool:
    """Return whether an entry does not belong to a network."""
    return any(re.fullmatch(pattern, name) for pattern in layout.ignore)


def name_for_file(names: Iterable[str], layout: Layout) -> dict[str, str]:
    """Return the file's name of each own name; raises ``WeightsError`` if the layout cannot express one."""
    theirs = {own: rename(own, layout.writes) for own in names}
    lost = [own for own, name in theirs.items() if name is None or rename(name, layout.rules) != own]
    if lost:
        raise WeightsError(f"the layout '{layout.name}' {format_names('has no name for', lost)}; write safetensors")
    return {own: name for own, name in theirs.items() if name is not None}


def rename(name: str, rules: Iterable[tuple[str, str]]) -> str | None:
    """Return the new name of an entry by the first rule that matches all of it, None if no rule does."""
    for pattern, replacement in rules:
        matched = re.fullmatch(pattern, name)
        if matched:
            return matched.expand(replacement)
    return None


def format_names(what: str, names: Collection[str], shown: int = 10) -> str:
    """Format ``lacks 12: 'a', 'b', …`` with the first names in order; empty without names."""
    if not names:
        return ""
    first = ", ".join(repr(name) for name in list(names)[:shown])
    return f"{what} {len(names)}: {first}{', …' if len(names) > shown else ''}"
