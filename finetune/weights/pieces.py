"""Grouped convolutions that MindSpore on Ascend writes as one tensor per group: ``conv2.convs.0.weight``, ``….1.…``."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from finetune.errors import WeightsError
from finetune.weights.tensorfile import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from finetune.weights.tensorfile import Index

PIECE = re.compile(r"(.*)\.convs\.(0|[1-9][0-9]{0,5})\.weight")


def joined(index: Index) -> Index:
    """Return the index as if grouped convolutions were whole.

    Pieces are joined on the first axis, that of output channels. Raises ``WeightsError`` where one is missing or
    differs from the others.
    """
    records, pieces = dict(index.records), found(index.records)
    for whole, names in pieces.items():
        parts = [records.pop(name) for name in names]
        if len({(part.dtype, part.shape) for part in parts}) > 1 or whole in records or not parts[0].shape:
            raise WeightsError(f"the pieces of {whole!r} do not fit each other; copy the file anew")
        rows, *rest = parts[0].shape
        records[whole] = Record(parts[0].dtype, (rows * len(parts), *rest), partial(_contents, parts))
    return replace(index, records=records, merged={whole: len(names) for whole, names in pieces.items()})


def found(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the pieces of each whole tensor, in the order of their numbers."""
    numbered: dict[str, dict[int, str]] = {}
    for name in names:
        if match := PIECE.fullmatch(name):
            numbered.setdefault(f"{match[1]}.weight", {})[int(match[2])] = name
    for whole, each in numbered.items():
        missing = next((number for number in range(len(each)) if number not in each), None)
        if missing is not None:
            raise WeightsError(f"{whole!r} lacks its piece {missing} of {max(each) + 1}; copy the file anew")
    return {whole: tuple(each[number] for number in sorted(each)) for whole, each in numbered.items()}


def _contents(parts: Sequence[Record]) -> bytearray:
    return bytearray().join(part.content() for part in parts)
