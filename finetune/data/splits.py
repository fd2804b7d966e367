"""Taking a validation split from the training images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.seeding import Stream, generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def stratified(
    labels: NDArray[np.int64], hashes: Sequence[str | None], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices that stay in training and those that go to validation, both ascending.

    Of a class with n images ``share * n`` are drawn, rounded, but at least one stays on either side; a class with a
    single image stays in training. Copies of a photo within a class go to the same side.
    """
    rng = generator(Stream.SPLIT, seed)
    valid = np.zeros(len(labels), bool)
    order = np.argsort(labels, kind="stable")
    bounds = np.flatnonzero(np.diff(labels[order])) + 1
    for members in np.split(order, bounds):
        groups = copies(members, hashes)
        for group in rng.permutation(len(groups))[: drawn(len(groups), share)]:
            valid[groups[group]] = True
    return np.flatnonzero(~valid), np.flatnonzero(valid)


def drawn(count: int, share: float) -> int:
    """Return how many of ``count`` photos go to validation."""
    return min(max(math.floor(count * share + 0.5), 1), count - 1) if count > 1 else 0


def copies(members: NDArray[np.int64], hashes: Sequence[str | None]) -> list[list[int]]:
    """Return the members in groups of one content."""
    groups: dict[object, list[int]] = {}
    for index in members.tolist():
        groups.setdefault(hashes[index] or index, []).append(index)
    return list(groups.values())
