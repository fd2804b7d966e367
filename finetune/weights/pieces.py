"""Grouped convolutions that MindSpore on Ascend writes as one tensor per group: ``conv2.convs.0.weight``, ``….1.…``."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from finetune.errors import WeightsError
from finetune.weights import tensorfile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

PIECE = re.compile(r"(.*)\.convs\.(\d+)\.weight")

Pieces = dict[str, tuple[str, ...]]


def joined(summary: tensorfile.Summary) -> tuple[tensorfile.Summary, Pieces]:
    """Return the summary as if grouped convolutions were whole, and the pieces of each in order.

    Pieces are joined on the first axis, that of output channels. Raises ``WeightsError`` where one is missing or
    differs from the others.
    """
    pieces = found(summary.shapes)
    shapes, dtypes = dict(summary.shapes), dict(summary.dtypes)
    for whole, names in pieces.items():
        kinds = {(shapes.pop(name), dtypes.pop(name)) for name in names}
        if len(kinds) > 1 or whole in shapes:
            raise WeightsError(f"the pieces of {whole!r} do not fit each other; copy the file anew")
        (shape, dtype) = kinds.pop()
        shapes[whole], dtypes[whole] = (shape[0] * len(names), *shape[1:]), dtype
    return replace(summary, shapes=shapes, dtypes=dtypes), pieces


def found(names: Iterable[str]) -> Pieces:
    """Return the pieces of each whole tensor, in the order of their numbers."""
    numbered: dict[str, dict[int, str]] = {}
    for name in names:
        if match := PIECE.fullmatch(name):
            numbered.setdefault(f"{match[1]}.weight", {})[int(match[2])] = name
    for whole, each in numbered.items():
        missing = sorted(set(range(max(each) + 1)) - set(each))
        if missing:
            raise WeightsError(f"{whole!r} lacks its piece {missing[0]} of {max(each) + 1}; copy the file anew")
    return {whole: tuple(each[number] for number in sorted(each)) for whole, each in numbered.items()}


def read(path: Path, names: Iterable[str], pieces: Mapping[str, tuple[str, ...]]) -> dict[str, NDArray[np.generic]]:
    """Return tensors of a file by the names that ``joined`` gave them."""
    wanted = tuple(names)
    single = {piece for name in wanted for piece in pieces.get(name, (name,))}
    tensors = tensorfile.read(path, single).tensors
    return {n: np.concatenate([tensors[p] for p in pieces[n]]) if n in pieces else tensors[n] for n in wanted}
