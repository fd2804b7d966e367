"""Label scores: planted errors come first, whatever the number of images and classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetune.audit import labels as module
from finetune.audit.labels import score_labels
from finetune.audit.neighbours import find_neighbours
from finetune.errors import DataError

pytestmark = pytest.mark.once

WIDTH = 16


def clusters(counts: list[int], *, seed: int = 0, spread: float = 0.5) -> tuple[Any, Any]:
    """Return features around one centre for each class, and the labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = rng.normal(size=(len(counts), WIDTH))
    return (centres[labels] + spread * rng.normal(size=(len(labels), WIDTH))).astype(np.float32), labels


def test_planted_errors_are_flagged_and_corrected() -> None:
    features, true = clusters([40] * 6)
    rng = np.random.default_rng(1)
    bad = rng.random(len(true)) < 0.1
    given = np.where(bad, (true + rng.integers(1, 6, len(true))) % 6, true)
    found = score_labels(features, given, 6)
    assert found.is_wrong[bad].all()
    assert found.is_wrong[~bad].mean() < 0.02
    assert found.score[bad].max() < found.score[~bad].min() + 0.1
    assert (found.suggested[bad] == true[bad]).all()
    assert (found.predicted == true).mean() > 0.95
    assert found.margins.shape == (4, len(true))


def test_the_result_does_not_depend_on_the_order_of_classes() -> None:
    features, labels = clusters([20, 20, 20])
    labels = labels.copy()
    labels[0] = 2
    found = score_labels(features, labels, 3)
    renamed = score_labels(features, 2 - labels, 3)
    assert found.is_wrong.tolist() == renamed.is_wrong.tolist()
    assert (2 - renamed.suggested[found.is_wrong]).tolist() == found.suggested[found.is_wrong].tolist()


@pytest.mark.parametrize("counts", [[2, 1], [1, 1, 1], [30, 1], [5, 5], [1] * 12])
def test_few_images(counts: list[int]) -> None:
    features, labels = clusters(counts)
    found = score_labels(features, labels, len(counts) + 3)  # some classes have no images
    assert np.isfinite(found.score).all()
    assert ((found.score >= 0) & (found.score <= 1)).all()
    assert (found.suggested != labels).all()
    assert set(found.suggested.tolist()) <= set(labels.tolist())


def test_constant_features_say_nothing() -> None:
    found = score_labels(np.ones((12, 4), np.float32), np.arange(12) % 3, 3)
    assert np.isfinite(found.score).all()


@pytest.mark.parametrize(
    ("features", "labels", "text"),
    [
        (np.full((4, 2), np.nan, np.float32), [0, 1, 0, 1], r"features: those of image 0 are not finite; use another"),
        (np.ones((2, 2), np.float32), [0, 1], r"audit: 2 images are too few to compare; add images"),
        (np.ones((4, 2), np.float32), [1, 1, 1, 1], r"audit: all images are of one class, so no label can be wrong"),
    ],
)
def test_what_cannot_be_compared(features: Any, labels: list[int], text: str) -> None:
    with pytest.raises(DataError, match=text):
        score_labels(features, np.array(labels), 2)


def test_the_ridge_leaves_one_out_exactly() -> None:
    features, labels = clusters([6, 6])
    rows = module.standardise(features)
    found = module.score_by_ridge(rows, labels, 2)
    targets = np.where(np.eye(2)[labels] == 1, 1.0, -1.0)
    for row in range(3):
        rest = np.arange(12) != row
        gram = rows[rest].T @ rows[rest] + module.RIDGE * np.eye(WIDTH)
        alone = rows[row] @ np.linalg.solve(gram, rows[rest].T @ targets[rest])
        np.testing.assert_allclose(found[row], alone, rtol=1e-3, atol=1e-4)


def test_neighbours_are_exact_and_ties_go_by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = clusters([30, 20])
    features[7] = features[3]
    features[11] = features[3]
    found = find_neighbours(features, 4)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    apart = 1 - unit @ unit.T
    np.fill_diagonal(apart, np.inf)
    assert np.allclose(np.sort(apart, axis=1)[:, :4], found.distances, atol=1e-5)
    assert found.indices[11, :2].tolist() == [3, 7]
    monkeypatch.setattr("finetune.audit.neighbours.BLOCK", 7)
    assert np.array_equal(find_neighbours(features, 4).indices, found.indices)
    assert find_neighbours(features[:2], 4).indices.tolist() == [[1], [0]]
    assert find_neighbours(features[:1], 4).count == 0
