"""Tensors whose axes a layout has in another order, as TensorFlow and Keras do with kernels."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from finetune.errors import WeightsError
from finetune.weights.formats.tensorfile import Record

if TYPE_CHECKING:
    from finetune.components import Layout
    from finetune.weights.formats.tensorfile import Index


def to_own(index: Index, layout: Layout | None) -> Index:
    """Return the tensors of a file with the axes of the network, by the rules of the file's layout."""
    if layout is None or not layout.transpose:
        return index
    return replace(index, records={name: turned(name, each, layout) for name, each in index.records.items()})


def to_file(name: str, record: Record, layout: Layout | None) -> Record:
    """Return a tensor of the network with the axes that the layout has it with, ``name`` being the file's."""
    return record if layout is None else turned(name, record, layout, back=True)


def turned(name: str, record: Record, layout: Layout, *, back: bool = False) -> Record:
    """Return a tensor with its axes in another order, to be transposed when it is read."""
    axes = next((axes for pattern, axes in layout.transpose if re.fullmatch(pattern, name)), None)
    if axes is None:
        return record
    if sorted(axes) != list(range(len(record.shape))):
        rank = len(record.shape)
        wrong = f"{name!r} has {rank} axes, and the layout '{layout.name}' reorders them as {axes}"
        raise WeightsError(f"{wrong}; correct its transpose, or give the file of this network")
    order = tuple(np.argsort(axes).tolist()) if back else tuple(axes)
    return Record(record.dtype, tuple(record.shape[axis] for axis in order), partial(_contents, record, order))


def _contents(record: Record, order: tuple[int, ...]) -> bytes:
    numbers = np.frombuffer(record.content(), f"V{record.itemsize}").reshape(record.shape)
    return numbers.transpose(order).tobytes()
