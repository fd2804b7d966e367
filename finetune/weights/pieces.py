"""Tensors that a layout holds in pieces, as MindSpore on Ascend does with the groups of a convolution.

``joined`` is where a file's tensors get the form that the network has: pieces are joined, then axes are transposed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from finetune.errors import WeightsError
from finetune.weights import axes, layouts
from finetune.weights.formats.tensorfile import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from finetune.components import Backbone, Layout
    from finetune.weights.formats.tensorfile import Index


def joined(index: Index, backbone: Backbone) -> Index:
    """Return the index with whole tensors whose axes are the network's, by the backbone's layouts.

    Pieces are joined by the first layout that finds some. Raises ``WeightsError`` where a piece is missing or differs
    from the others, or where a tensor has not the axes that are to be transposed.
    """
    for layout in backbone.layouts:
        if pieces := found(index.records, layout):
            index = join(index, pieces)
            break
    return axes.to_own(index, layouts.match(index.records, backbone))


def join(index: Index, pieces: dict[str, tuple[str, ...]]) -> Index:
    """Return the index with pieces joined on their first axis, that of output channels."""
    records = dict(index.records)
    for whole, names in pieces.items():
        parts = [records.pop(name) for name in names]
        if len({(part.dtype, part.shape) for part in parts}) > 1 or whole in records or not parts[0].shape:
            raise WeightsError(f"the pieces of {whole!r} do not fit each other; copy the file anew")
        rows, *rest = parts[0].shape
        records[whole] = Record(parts[0].dtype, (rows * len(parts), *rest), partial(_contents, parts))
    return replace(index, records=records, merged={whole: len(names) for whole, names in pieces.items()})


def found(names: Iterable[str], layout: Layout) -> dict[str, tuple[str, ...]]:
    """Return the pieces of each whole tensor that the layout has a place for, in the order of their numbers."""
    if layout.pieces is None:
        return {}
    pattern, whole = layout.pieces
    numbered: dict[str, dict[int, str]] = {}
    for name in names:
        match = re.fullmatch(pattern, name)
        if match is None or layouts.is_ignored(name, layout):
            continue
        number = match[match.re.groups]
        own = match.expand(whole)
        if number.isascii() and len(number) < 7 and layouts.rename(own, layout.rules) is not None:
            numbered.setdefault(own, {})[int(number)] = name
    for own, each in numbered.items():
        missing = next((number for number in range(len(each)) if number not in each), None)
        if missing is not None:
            raise WeightsError(f"{own!r} lacks its piece {missing} of {max(each) + 1}; copy the file anew")
    return {own: tuple(each[number] for number in sorted(each)) for own, each in numbered.items()}


def _contents(parts: Sequence[Record]) -> bytearray:
    return bytearray().join(part.content() for part in parts)
