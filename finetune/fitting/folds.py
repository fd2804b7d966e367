"""Folds of images: stratified by class, with duplicates and near duplicates in the same fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finetune.fitting.logistic import measure_scaling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Rows = NDArray[np.int64]

CLOSE = 0.13  # images closer than this share of the median nearest-neighbour distance are near duplicates
COMPARED = 20_000  # the most images to compare by their features
SAMPLE = 1024  # images whose nearest neighbours give the median
SKETCH = 48  # directions in which all images are compared first
NEIGHBOURS = 8  # near duplicates to consider for each image
BLOCK = 1024  # rows per block


def assign_folds(labels: Rows, groups: Rows, folds: int, seed: int) -> Rows:
    """Return the fold 0..folds-1 of each image, int64 (N,).

    A group stays in one fold. Groups are assigned from large to small, in an order that depends only on ``seed``: each
    to the fold with the fewest images of the group's class, then with the fewest images. With fewer groups than folds,
    some folds stay empty.
    """
    if not len(labels):
        return np.zeros(0, np.int64)
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)
    kind = _find_commonest_labels(labels, group)
    order = np.lexsort((scramble(len(sizes), seed), kind, -sizes))
    filled = [[0] * folds for _ in range(int(kind.max()) + 1)]
    totals = [0] * folds
    fold_of = np.zeros(len(sizes), np.int64)
    for at in order.tolist():
        of_class = filled[kind[at]]
        fold = min(range(folds), key=lambda f: (of_class[f], totals[f], f))
        fold_of[at] = fold
        of_class[fold] += int(sizes[at])
        totals[fold] += int(sizes[at])
    return fold_of[group]


def _find_commonest_labels(labels: Rows, group: Rows) -> Rows:
    """Return the most common label of each group, and the smallest of several."""
    pairs, counts = np.unique(np.stack([group, labels], axis=1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    first = np.unique(pairs[order, 0], return_index=True)[1]
    commonest: Rows = pairs[order][first, 1]
    return commonest


def scramble(count: int, seed: int) -> NDArray[np.uint64]:
    """Return a pseudo-random number for each of 0..count-1: SplitMix64, the same with every version of NumPy."""
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed += np.uint64(seed * 0xD1342543DE82EF95 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def group_images(hashes: Sequence[str | None], features: Floats) -> Rows:
    """Return the group of each image, int64 (N,), as the number of the first image in the group.

    Images are in the same group if their files have the same content hash, or if their standardised features are
    closer than ``CLOSE`` times the median distance between nearest neighbours. With more than ``COMPARED`` images only
    hashes are compared, since the time grows with the square of the number of images.
    """
    parents = list(range(len(hashes)))
    first: dict[str, int] = {}
    for at, content in enumerate(hashes):
        if content is not None:
            _join_groups(parents, first.setdefault(content, at), at)
    if 1 < len(hashes) <= COMPARED:
        for left, right in _find_near_pairs(features).tolist():
            _join_groups(parents, left, right)
    return np.array([_find_root(parents, at) for at in range(len(parents))], np.int64)


def join_groups(groups: Rows, names: Sequence[str | None]) -> Rows:
    """Merge the groups that contain images of the same name; None is not a name."""
    parents = groups.tolist()
    first: dict[str, int] = {}
    for at, name in enumerate(names):
        if name is not None:
            _join_groups(parents, first.setdefault(name, at), at)
    return np.array([_find_root(parents, at) for at in range(len(parents))], np.int64)


def _find_root(parents: list[int], at: int) -> int:
    while parents[at] != at:
        parents[at] = parents[parents[at]]
        at = parents[at]
    return at


def _join_groups(parents: list[int], left: int, right: int) -> None:
    left, right = sorted((_find_root(parents, left), _find_root(parents, right)))
    parents[right] = left


def _find_near_pairs(features: Floats) -> Rows:
    """Return the pairs of rows that are near duplicates, int64 (P, 2).

    Rows are compared in their principal directions first; no pair is further apart there than in all directions.
    """
    scaled = measure_scaling(features).apply(features)
    limit = CLOSE * _measure_median_distance(scaled)
    pairs = _find_pairs_within(scaled @ _find_principal(scaled), limit)
    distances = _measure_distances(scaled, pairs)
    near: Rows = pairs[distances < limit]
    return near


def _find_principal(scaled: Floats) -> Floats:
    sample = scaled[:: max(1, len(scaled) // (4 * SAMPLE))].astype(np.float64)
    vectors = np.linalg.eigh(sample.T @ sample)[1]
    return vectors[:, -SKETCH:].astype(np.float32)


def _measure_median_distance(scaled: Floats) -> float:
    """Return the median nearest-neighbour distance of a sample; 0 if all rows are equal."""
    sample = np.arange(0, len(scaled), max(1, len(scaled) // SAMPLE))
    nearest = np.zeros(len(sample), np.int64)
    squares = np.square(scaled).sum(axis=1)
    for at in range(0, len(sample), BLOCK):
        rows = sample[at : at + BLOCK]
        apart = squares - 2.0 * (scaled[rows] @ scaled.T)
        apart[np.arange(len(rows)), rows] = np.inf
        nearest[at : at + BLOCK] = apart.argmin(axis=1)
    distances = _measure_distances(scaled, np.stack([sample, nearest], axis=1))
    distances = distances[distances > 0.0]
    return float(np.median(distances)) if len(distances) else 0.0


def _measure_distances(scaled: Floats, pairs: Rows) -> Doubles:
    found = np.zeros(len(pairs))
    for at in range(0, len(pairs), BLOCK):
        left, right = pairs[at : at + BLOCK].T
        found[at : at + BLOCK] = np.linalg.norm(scaled[left].astype(np.float64) - scaled[right], axis=1)
    return found


def _find_pairs_within(points: Floats, limit: float) -> Rows:
    """Return the pairs of points that may be closer than ``limit``, with a few more because of rounding.

    Of a point's later neighbours only the closest ``NEIGHBOURS`` are returned, which still connect a dense cluster.
    """
    squares = np.square(points).sum(axis=1)
    slack = np.float32(limit**2 + 1e-5 * float(squares.max(initial=0.0)))
    found = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(points), BLOCK):
        rows = points[start : start + BLOCK]
        apart = (squares[start : start + BLOCK, None] - slack) + squares[start:] - 2.0 * (rows @ points[start:].T)
        apart[np.tril_indices(len(rows))] = np.inf
        crowded = np.flatnonzero((apart < 0.0).sum(axis=1) > NEIGHBOURS)
        for row in crowded.tolist():
            apart[row, np.argpartition(apart[row], NEIGHBOURS)[NEIGHBOURS:]] = np.inf
        found.append(np.stack(np.nonzero(apart < 0.0), axis=1) + start)
    return np.concatenate(found)
