"""Thresholds that follow from images that were held back: their shares hold for new images."""

from __future__ import annotations

import numpy as np
import pytest

from finetune import UsageError
from finetune.confidence.reference import Reference, build_reference, rank_among
from finetune.confidence.unknown import ClassStatistics, measure_out_of_fold, sum_moments

CLASSES, WIDTH = 6, 12


def draw(count: int, seed: int, far: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return features (N, D) of six classes, or of images that are like none of them, and labels."""
    centres = np.random.default_rng(0).normal(0, 3, (CLASSES, WIDTH))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    middle = rng.normal(0, 3, (count, WIDTH)) if far else centres[labels]
    return (middle + rng.normal(0, 1, (count, WIDTH))).astype(np.float32), labels


@pytest.fixture(scope="module")
def statistics() -> ClassStatistics:
    features, labels = draw(600, 1)
    return sum_moments(features, labels, CLASSES).compute_statistics()


@pytest.fixture(scope="module")
def reference(statistics: ClassStatistics) -> Reference:
    features, _ = draw(500, 2)
    rng = np.random.default_rng(3)
    own = rng.beta(5, 1, 500).astype(np.float32)
    found = build_reference(np.maximum(own, 0.5), own, statistics.measure_distance(features), statistics)
    assert found is not None
    return found


def test_moments_are_means_and_a_shared_covariance(statistics: ClassStatistics) -> None:
    features, labels = draw(600, 1)
    means = np.stack([features[labels == label].mean(axis=0) for label in range(CLASSES)])
    np.testing.assert_allclose(statistics.means, means, atol=1e-5)
    centred = features - means[labels]
    plain = centred.T @ centred / len(features)
    shrinkage = max(0.05, WIDTH / (WIDTH + 600))
    expected = (1 - shrinkage) * plain + shrinkage * np.trace(plain) / WIDTH * np.eye(WIDTH)
    np.testing.assert_allclose(statistics.covariance, expected, atol=1e-4)


def test_the_distance_is_that_of_the_formula(statistics: ClassStatistics) -> None:
    features, _ = draw(20, 5)
    shares = statistics.counts / statistics.counts.sum()
    mean = shares @ statistics.means
    between = sum(s * np.outer(m - mean, m - mean) for s, m in zip(shares, statistics.means, strict=True))
    inverse, overall = np.linalg.inv(statistics.covariance), np.linalg.inv(statistics.covariance + between)
    for row, distance in zip(features, statistics.measure_distance(features), strict=True):
        nearest = min((row - m) @ inverse @ (row - m) for m in statistics.means)
        assert distance == pytest.approx(nearest - (row - mean) @ overall @ (row - mean), rel=1e-3, abs=1e-3)


def test_images_of_no_class_are_further_away(statistics: ClassStatistics) -> None:
    known, strange = (statistics.measure_distance(draw(300, 9, far=far)[0]) for far in (False, True))
    assert np.median(strange) > np.quantile(known, 0.99)


def test_a_class_without_images_is_left_out() -> None:
    features, labels = draw(100, 1)
    found = sum_moments(features, labels, CLASSES + 3).compute_statistics()
    np.testing.assert_allclose(
        found.measure_distance(features),
        sum_moments(features, labels, CLASSES).compute_statistics().measure_distance(features),
        rtol=1e-4,
        atol=1e-4,
    )


def test_distances_out_of_fold_use_the_other_folds() -> None:
    features, labels = draw(90, 1)
    folds = np.arange(90) % 3
    found = measure_out_of_fold(features, labels, folds, CLASSES)
    rest = sum_moments(features[folds != 1], labels[folds != 1], CLASSES).compute_statistics()
    np.testing.assert_allclose(found[folds == 1], rest.measure_distance(features[folds == 1]), rtol=1e-3, atol=1e-3)
    assert np.isnan(measure_out_of_fold(features, labels, np.zeros(90, int), CLASSES)).all()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_false_alarms_are_as_rare_as_asked(reference: Reference, statistics: ClassStatistics, share: float) -> None:
    threshold = reference.find_threshold(share)
    own = reference.score_known(reference.confidence, draw(500, 2)[0])
    assert (own < threshold).mean() <= share
    new, strange = (draw(4000, 11, far=far)[0] for far in (False, True))
    confidence = np.maximum(np.random.default_rng(12).beta(5, 1, 4000), 0.5).astype(np.float32)
    assert (reference.score_known(confidence, new) < threshold).mean() == pytest.approx(share, abs=0.03)
    assert (reference.score_known(confidence, strange) < threshold).mean() > 2 * share


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.99])
def test_label_sets_cover_as_often_as_asked(reference: Reference, coverage: float) -> None:
    least = reference.find_least_probability(coverage)
    assert (reference.own >= least).mean() >= coverage
    assert (np.random.default_rng(5).beta(5, 1, 20_000) >= least).mean() == pytest.approx(coverage, abs=0.04)


def test_shares_that_need_more_images(reference: Reference) -> None:
    with pytest.raises(UsageError, match=r"unknown=0.001 needs at least 999 images .* has 500"):
        reference.find_threshold(0.001)
    with pytest.raises(UsageError, match=r"coverage=0.999 needs at least 999 images"):
        reference.find_least_probability(0.999)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_shares_that_are_none(reference: Reference, share: float) -> None:
    for ask in (reference.find_threshold, reference.find_least_probability):
        with pytest.raises(UsageError, match=r"must be between 0 and 1, such as 0.05 or 0.95"):
            ask(share)


def test_a_reference_is_stored_and_read(reference: Reference) -> None:
    again = Reference.from_arrays(reference.to_arrays())
    features, _ = draw(50, 20)
    confidence = np.linspace(0.3, 1, 50, dtype=np.float32)
    np.testing.assert_array_equal(reference.score_known(confidence, features), again.score_known(confidence, features))
    assert again.find_threshold(0.05) == reference.find_threshold(0.05)


@pytest.mark.parametrize("name", ["own", "means", "covariance", "counts"])
def test_a_damaged_reference_is_refused(reference: Reference, name: str) -> None:
    arrays = reference.to_arrays()
    with pytest.raises(ValueError, match=r"do not match"):
        Reference.from_arrays({**arrays, name: arrays[name][1:]})
    with pytest.raises(KeyError):
        Reference.from_arrays({key: value for key, value in arrays.items() if key != name})


def test_without_finite_scores_there_is_no_reference(statistics: ClassStatistics) -> None:
    nan = np.full(3, np.nan, np.float32)
    assert build_reference(nan, nan, nan, statistics) is None


def test_ranks_of_equal_values_are_in_the_middle() -> None:
    found = rank_among(np.array([0, 1, 2, 3], np.float32), np.array([1, 1, 2], np.float32))
    assert found.tolist() == pytest.approx([0, 1 / 3, 5 / 6, 1])
