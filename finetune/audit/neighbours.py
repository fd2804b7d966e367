"""Nearest neighbours: exact cosine neighbours of all images, in blocks of fixed size, so that memory stays bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Indices = NDArray[np.int64]

BLOCK = 1024  # rows of a block; the same for any number of threads, so that sums have the same order
SMALLEST_NORM = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The nearest other rows of each row: ``indices`` and cosine ``distances`` (N, k), the nearest first."""

    indices: Indices
    distances: Floats

    @property
    def count(self) -> int:
        """The number of neighbours of a row."""
        return self.indices.shape[1]


def normalise_rows(features: Floats) -> Floats:
    """Return rows of length 1; a row of zeros stays zero."""
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    rows: Floats = (features / np.maximum(norms, SMALLEST_NORM)[:, None]).astype(np.float32)
    return rows


def find_neighbours(features: Floats, count: int) -> Neighbours:
    """Find the ``count`` nearest other rows of each row by cosine distance; fewer if there are fewer rows.

    Ties are broken by index. Memory is ``BLOCK`` rows of distances, 0.4 GB for 100,000 rows.
    """
    rows = normalise_rows(features)
    count = min(count, max(0, len(rows) - 1))
    indices = np.empty((len(rows), count), np.int64)
    distances = np.empty((len(rows), count), np.float32)
    for start in range(0, len(rows) if count else 0, BLOCK):
        block = slice(start, min(start + BLOCK, len(rows)))
        apart = 1 - rows[block] @ rows.T
        own = np.arange(block.start, block.stop)
        apart[own - start, own] = np.inf
        nearest = _select_nearest(apart, count)
        indices[block] = nearest
        distances[block] = np.maximum(np.take_along_axis(apart, nearest, axis=1), 0)
    return Neighbours(indices=indices, distances=distances)


def _select_nearest(apart: Floats, count: int) -> Indices:
    """Return the columns of the ``count`` smallest values of each row, in order of value and then of index."""
    if count < apart.shape[1]:
        bound = np.partition(apart, count - 1, axis=1)[:, count - 1 : count]
        chosen = np.empty((len(apart), count), np.int64)
        for row, (values, limit) in enumerate(zip(apart, bound, strict=True)):
            candidates = np.flatnonzero(values <= limit)
            chosen[row] = candidates[np.argsort(values[candidates], kind="stable")[:count]]
        return chosen
    return np.argsort(apart, axis=1, kind="stable")[:, :count]
