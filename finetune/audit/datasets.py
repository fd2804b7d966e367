"""Checks of a data set as a whole: outliers, rare and confused classes, order, and properties that give labels away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from finetune.audit.neighbours import Neighbours

    Rows = NDArray[np.int64]

SPREAD = 1.7  # interquartile ranges above the third quartile from which on an image is like no other
RARE = 0.1  # share of a class below this part of an even share
PERMUTATIONS = 25
SIGNIFICANT = 0.05
REVEALING = 0.3  # by how much a property must predict the label better than its most frequent class
BINS = 8
FEWEST = 3  # images of a class below which its labels cannot be judged
PAIRS = 10  # confused pairs to report


def find_outliers(neighbours: Neighbours) -> NDArray[np.bool_]:
    """Flag images whose mean distance to their neighbours is above Q3 + 1.7 IQR."""
    if not neighbours.count:
        return np.zeros(len(neighbours.indices), bool)
    distances = neighbours.distances.mean(axis=1, dtype=np.float64)
    low, high = np.quantile(distances, (0.25, 0.75))
    found: NDArray[np.bool_] = distances > high + SPREAD * (high - low)
    return found


def find_rare_classes(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return classes with less than a tenth of an even share of the images."""
    total = sum(counts.values())
    least = RARE * total / max(1, len(counts))
    return [{"class": name, "images": count} for name, count in counts.items() if count < least]


def find_confused_classes(labels: Rows, predicted: Rows, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pairs of classes that are most often taken for each other, with the share of their images."""
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    counts = matrix.sum(axis=1)
    found: list[dict[str, Any]] = []
    for one in range(len(classes)):
        for other in range(one + 1, len(classes)):
            mixed = int(matrix[one, other] + matrix[other, one])
            if mixed > 1:
                share = mixed / max(1, int(counts[one] + counts[other]))
                found.append({"classes": [classes[one], classes[other]], "images": mixed, "share": round(share, 4)})
    return sorted(found, key=lambda each: (-float(each["share"]), each["classes"]))[:PAIRS]


def measure_order(neighbours: Neighbours, labels: Rows) -> float | None:
    """Return the p-value of the hypothesis that the images of each class are in random order; None for too few.

    The gaps between the positions of neighbours of the same class are compared with those of a random order by the
    Kolmogorov-Smirnov statistic, whose distribution comes from permutations (after cleanlab's Datalab).
    """
    rows = np.repeat(np.arange(len(labels)), neighbours.count)
    others = neighbours.indices.ravel()
    same = labels[rows] == labels[others]
    rows, others = rows[same], others[same]
    if len(rows) < PERMUTATIONS:
        return None
    rng = np.random.default_rng(0)
    statistic = compare_gaps(place_images(labels, None), rows, others)
    drawn = [compare_gaps(place_images(labels, rng), rows, others) for _ in range(PERMUTATIONS)]
    return float((1 + sum(each >= statistic for each in drawn)) / (1 + PERMUTATIONS))


def place_images(labels: Rows, rng: np.random.Generator | None) -> NDArray[np.float64]:
    """Return the position of each image within its class, from 0 to 1; at random with a generator."""
    places = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = np.arange(len(rows)) if rng is None else rng.permutation(len(rows))
        places[rows] = (order + 0.5) / len(rows)
    return places


def compare_gaps(places: NDArray[np.float64], rows: Rows, others: Rows) -> float:
    """Return the largest difference between the distribution of gaps and that of two random positions."""
    gaps = np.sort(np.abs(places[rows] - places[others]))
    expected = 1 - (1 - gaps) ** 2
    seen = np.arange(1, len(gaps) + 1) / len(gaps)
    return float(np.abs(seen - expected).max())


def find_shortcuts(labels: Rows, properties: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return properties that give the label away: with them alone, far more labels are guessed than without.

    Numbers are divided into ``BINS`` ranges of equally many images. Each image is guessed from the other images with
    its value, so that rare values give nothing away.
    """
    base = np.bincount(labels).max() / len(labels)
    found = []
    for name, values in properties.items():
        keys = divide_values(values)
        if len(np.unique(keys)) < 2:
            continue
        accuracy = guess_labels(labels, keys)
        if accuracy - base > REVEALING * (1 - base):
            found.append({"property": name, "accuracy": round(accuracy, 4), "by_chance": round(float(base), 4)})
    return found


def divide_values(values: Sequence[Any]) -> Rows:
    """Return the number of the range of each number, or of each distinct text."""
    array = np.asarray(values)
    if array.dtype.kind in "fiu":
        bounds = np.unique(np.quantile(array, np.linspace(0, 1, BINS + 1)[1:-1]))
        ranges: Rows = np.searchsorted(bounds, array, side="right").astype(np.int64)
        return ranges
    kinds: Rows = np.unique(array, return_inverse=True)[1].astype(np.int64)
    return kinds


def guess_labels(labels: Rows, keys: Rows) -> float:
    """Return the share of labels that the most frequent label of the other rows with the same key predicts."""
    table = np.zeros((keys.max() + 1, labels.max() + 1), np.int64)
    np.add.at(table, (keys, labels), 1)
    others = table[keys]
    others[np.arange(len(labels)), labels] -= 1
    return float((others.argmax(axis=1) == labels)[others.max(axis=1) > 0].sum() / len(labels))
