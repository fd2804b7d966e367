"""Duplicates: copies and near copies of a picture, in and across splits, and contradictions between their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.audit.neighbours import Neighbours, find_neighbours

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


NEAR = 0.13  # times the median distance of nearest neighbours, the rule of cleanlab's Datalab
BITS = 20  # of 64: the most bits in which the hashes of near duplicates differ; those of others differ in about 32
NEAREST = 5  # neighbours that can be near duplicates


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows of images that show the same picture; ``exact`` if their pixels or files are the same."""

    rows: tuple[int, ...]
    exact: bool


def find_duplicates(
    hashes: Sequence[str | None], pictures: NDArray[np.void], features: NDArray[np.float32]
) -> list[Group]:
    """Return groups of duplicates in order of their first row.

    Exact duplicates have the same file or the same pixels. Near duplicates are close by their features, and their
    perceptual hashes confirm it, since flat images match many others by hash alone.
    """
    exact = [*pair_equal(hashes), *pair_equal(pictures["pixels"].tolist())]
    near = pair_near(pictures["hash"], find_neighbours(features, NEAREST))
    groups = [Group(rows=rows, exact=True) for rows in join_pairs(exact)]
    joined = {row: group.rows[0] for group in groups for row in group.rows}
    others = [(first, second) for first, second in near if joined.get(first, first) != joined.get(second, second)]
    groups += [Group(rows=rows, exact=False) for rows in join_pairs(others)]
    return sorted(groups, key=lambda group: group.rows)


def pair_equal(keys: Sequence[object]) -> list[tuple[int, int]]:
    """Return pairs of rows with the same key, each with the first of its kind; None is equal to nothing."""
    first: dict[object, int] = {}
    pairs = [(first.setdefault(key, row), row) for row, key in enumerate(keys) if key is not None]
    return [(one, other) for one, other in pairs if one != other]


def pair_near(hashes: NDArray[np.uint64], neighbours: Neighbours) -> list[tuple[int, int]]:
    """Return pairs of rows whose features and hashes are close."""
    if not neighbours.count:
        return []
    limit = NEAR * float(np.median(neighbours.distances[:, 0]))
    rows, places = np.nonzero(neighbours.distances <= limit)
    pairs = []
    for row, other in zip(rows.tolist(), neighbours.indices[rows, places].tolist(), strict=True):
        if int(hashes[row] ^ hashes[other]).bit_count() <= BITS:
            pairs.append((min(row, other), max(row, other)))
    return sorted(set(pairs))


def join_pairs(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Return the connected rows of pairs, each in order."""
    root: dict[int, int] = {}

    def find(row: int) -> int:
        while root.setdefault(row, row) != row:
            row = root[row]
        return row

    for first, second in pairs:
        one, other = sorted((find(first), find(second)))
        root[other] = one
    groups: dict[int, list[int]] = {}
    for row in sorted(root):
        groups.setdefault(find(row), []).append(row)
    return [tuple(rows) for rows in groups.values()]
