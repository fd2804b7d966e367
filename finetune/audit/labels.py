"""Label scores: how well the label of each image agrees with the other images, by four independent estimates.

Each estimate is a margin: the score of the given class minus that of the best other class, for an image that the
estimate was not fitted to. An image whose four margins are all negative is flagged, and its label score is the mean of
its ranks in the four.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.audit.neighbours import Neighbours, find_neighbours
from finetune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Rows = NDArray[np.int64]

RIDGE = 3.0  # penalty of the ridge regression, on standardised features
SHRINKAGE = 0.05  # least shrinkage of the covariance towards its mean variance; more with few images
NEIGHBOURS = 10
EPOCHS, BATCH, RATE, MOMENTUM = 20, 128, 0.005, 0.9  # of the linear head whose margins are averaged
SMALLEST = 1e-6
MOST = 20_000  # rows that the linear head sees in an epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScores:
    """The result for each image.

    ``score`` is from 0 (surely wrong) to 1, ``is_wrong`` flags images whose four margins are negative, ``suggested`` is
    the class other than the given one that most estimates prefer, ``predicted`` the class of the regression without the
    image, and ``neighbours`` has the nearest images.
    """

    score: Floats
    is_wrong: NDArray[np.bool_]
    suggested: Rows
    predicted: Rows
    margins: Floats
    neighbours: Neighbours


def score_labels(features: Floats, labels: Rows, classes: int) -> LabelScores:
    """Score the labels (N,) of images by their features (N, D).

    Raises ``DataError`` if a feature is not finite, or if there are fewer than two classes or three images.
    """
    check_features(features, labels)
    present = np.unique(labels)
    own = np.searchsorted(present, labels)  # classes without images play no part
    rows = standardise(features)
    neighbours = find_neighbours(rows, NEIGHBOURS)
    trained, area = score_by_training(rows, own, len(present))
    estimates = (
        score_by_ridge(rows, own, len(present)),
        score_by_lda(rows, own, len(present)),
        score_by_neighbours(neighbours, own, len(present)),
        trained,
    )
    margins = np.stack([*(compute_margins(scores, own) for scores in estimates[:-1]), area])
    ranks = np.stack([rank_values(each) for each in margins])
    votes = np.sum([rank_columns(scores) for scores in estimates], axis=0)
    suggested = suggest_classes(estimates, own, votes)
    return LabelScores(
        score=ranks.mean(axis=0).astype(np.float32),
        is_wrong=(margins < 0).all(axis=0),
        suggested=present[suggested],
        predicted=present[estimates[0].argmax(axis=1)],
        margins=margins,
        neighbours=neighbours,
    )


def check_features(features: Floats, labels: Rows) -> None:
    """Raise ``DataError`` for features that cannot be compared."""
    if not np.isfinite(features).all():
        bad = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
        raise DataError(f"features: those of image {bad} are not finite; use another backbone or other weights")
    if len(labels) < 3:
        raise DataError(f"audit: {len(labels)} images are too few to compare; add images")
    if len(np.unique(labels)) < 2:
        raise DataError("audit: all images are of one class, so no label can be wrong; add images of other classes")


def standardise(features: Floats) -> Floats:
    """Return features with mean 0 and deviation 1; a constant feature becomes 0."""
    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    found: Floats = ((features - mean) / np.where(deviation > SMALLEST, deviation, 1)).astype(np.float32)
    return found


def score_by_ridge(rows: Floats, labels: Rows, classes: int) -> Floats:
    """Return leave-one-out scores (N, K) of a ridge regression on class indicators.

    With the leverage h of a row, its score without it is (fit - h y) / (1 - h), which is exact (Cook 1977).
    """
    targets = np.full((len(rows), classes), -1 / max(1, classes - 1), np.float32)
    targets[np.arange(len(rows)), labels] = 1
    gram = rows.T.astype(np.float64) @ rows + RIDGE * np.eye(rows.shape[1])
    solved = np.linalg.solve(gram, rows.T.astype(np.float64)).astype(np.float32)
    leverage = np.einsum("nd,dn->n", rows, solved)[:, None]
    fit = rows @ (solved @ targets)
    found: Floats = (fit - leverage * targets) / np.maximum(1 - leverage, SMALLEST)
    return found


def score_by_lda(rows: Floats, labels: Rows, classes: int) -> Floats:
    """Return scores (N, K) of a linear discriminant analysis with a shrunk shared covariance.

    The squared distance to the own class mean is corrected by (n / (n - 1))^2 for the image's part in that mean.
    """
    counts = np.bincount(labels, minlength=classes)
    means = np.zeros((classes, rows.shape[1]))
    np.add.at(means, labels, rows)
    means /= np.maximum(counts, 1)[:, None]
    centred = rows - means[labels].astype(np.float32)
    covariance = centred.T.astype(np.float64) @ centred / len(rows)
    width, mean_variance = len(covariance), np.trace(covariance) / len(covariance)
    shrinkage = max(SHRINKAGE, width / (width + len(rows)))
    covariance = (1 - shrinkage) * covariance + (shrinkage * mean_variance + SMALLEST) * np.eye(width)
    whitening = np.linalg.cholesky(np.linalg.inv(covariance)).astype(np.float32)
    points, centres = rows @ whitening, means.astype(np.float32) @ whitening
    lengths, norms = np.einsum("nd,nd->n", points, points), np.einsum("kd,kd->k", centres, centres)
    squared = lengths[:, None] - 2 * points @ centres.T + norms
    own = np.arange(len(rows)), labels
    alone = counts[labels] < 2
    factor = (counts[labels] / np.maximum(counts[labels] - 1, 1)) ** 2
    squared[own] = np.where(alone, squared.max(axis=1), squared[own] * factor)
    found: Floats = -squared.astype(np.float32)
    return found


def score_by_neighbours(neighbours: Neighbours, labels: Rows, classes: int) -> Floats:
    """Return the summed similarity (N, K) of the nearest other images of each class."""
    scores = np.zeros((len(labels), classes), np.float32)
    similar = 1 - neighbours.distances
    rows = np.repeat(np.arange(len(labels)), neighbours.count)
    np.add.at(scores, (rows, labels[neighbours.indices].ravel()), similar.ravel())
    return scores


def score_by_training(rows: Floats, labels: Rows, classes: int) -> tuple[Floats, Floats]:
    """Return mean logits (N, K) and mean margins (N,) of a linear head over its first epochs.

    In these it has not learnt wrong labels by heart yet. The mean margin is the area under the margin of Pleiss et al.
    (2020, https://arxiv.org/abs/2001.10528).
    """
    rng = np.random.default_rng(0)
    weight, bias = np.zeros((rows.shape[1], classes), np.float32), np.zeros(classes, np.float32)
    speed, speed_bias = np.zeros_like(weight), np.zeros_like(bias)
    total, margins = np.zeros((len(rows), classes), np.float32), np.zeros(len(rows), np.float32)
    for _ in range(EPOCHS):
        order = rng.permutation(len(rows))[:MOST]
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            error = compute_softmax(rows[chosen] @ weight + bias)
            error[np.arange(len(chosen)), labels[chosen]] -= 1
            error /= len(chosen)
            speed = MOMENTUM * speed + rows[chosen].T @ error
            speed_bias = MOMENTUM * speed_bias + error.sum(axis=0)
            weight, bias = weight - RATE * speed, bias - RATE * speed_bias
        logits = rows @ weight + bias
        total, margins = total + logits, margins + compute_margins(logits, labels)
    return total / EPOCHS, margins / EPOCHS


def compute_softmax(logits: Floats) -> Floats:
    """Return probabilities (N, K)."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Floats = exponents / exponents.sum(axis=1, keepdims=True)
    return found


def compute_margins(scores: Floats, labels: Rows) -> Floats:
    """Return the score of each row's own class minus that of the best other class."""
    own = scores[np.arange(len(labels)), labels]
    others = scores.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    margins: Floats = (own - others.max(axis=1)).astype(np.float32)
    return margins


def rank_values(values: Floats) -> Floats:
    """Return ranks from 0 to 1; equal values get the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    in_order = values[order]
    first = np.searchsorted(in_order, values, side="left")
    last = np.searchsorted(in_order, values, side="right") - 1
    ranks: Floats = ((first + last) / 2 / max(1, len(values) - 1)).astype(np.float32)
    return ranks


def rank_columns(scores: Floats) -> Floats:
    """Return the ranks of each column."""
    return np.stack([rank_values(column) for column in scores.T], axis=1)


def suggest_classes(estimates: Sequence[Floats], labels: Rows, votes: Floats) -> Rows:
    """Return the other class that most estimates prefer; ties go to the one with the higher mean rank."""
    counts = votes / (len(estimates) + 1)  # below 1, so that it only breaks ties
    for scores in estimates:
        others = scores.copy()
        others[np.arange(len(labels)), labels] = -np.inf
        counts[np.arange(len(labels)), others.argmax(axis=1)] += 1
    counts[np.arange(len(labels)), labels] = -np.inf
    found: Rows = counts.argmax(axis=1)
    return found
