"""Reference of a model: scores of images that it was not trained on, from which thresholds follow.

For images of no known class, confidence and distance are each replaced by their rank among the reference, and the mean
of the two ranks is the score. For label sets, the probability of the true class is the conformity score of split
conformal prediction (Vovk et al. 2005; Sadinle et al. 2019, https://arxiv.org/abs/1609.00451).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING

import numpy as np

from finetune.confidence.unknown import ClassStatistics
from finetune.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

MOST = 20_000  # reference images kept


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Scores of n images that were not trained on, each (n,), and statistics of the classes.

    ``confidence`` is the probability of the most likely class, ``own`` that of the true class, ``distance`` the
    relative Mahalanobis distance.
    """

    confidence: Floats
    own: Floats
    distance: Floats
    statistics: ClassStatistics

    def score_known(self, confidence: Floats, features: Floats) -> Floats:
        """Return how well images fit the known classes, from 0 (not at all) to 1: (N,) and (N, D) to (N,)."""
        return self._combine(confidence, self.statistics.measure_distance(features))

    def _combine(self, confidence: Floats, distance: Floats) -> Floats:
        sure = rank_among(confidence, self.confidence)
        near = rank_among(-distance, -self.distance)
        found: Floats = ((sure + near) / 2).astype(np.float32)
        return found

    def find_threshold(self, false_alarms: float) -> float:
        """Return the score below which an image is of no known class, with at most this share of false alarms.

        Raises ``UsageError`` if there are too few reference images for such a small share.
        """
        check_share("unknown", false_alarms)
        place = floor(false_alarms * (len(self.confidence) + 1))
        if place < 1:
            self._refuse(f"unknown={false_alarms:g}", 1 / false_alarms)
        return float(np.sort(self._combine(self.confidence, self.distance))[place - 1])

    def find_least_probability(self, coverage: float) -> float:
        """Return the least probability of a label in the set that has the true label with this probability.

        Raises ``UsageError`` if there are too few reference images for such a large coverage.
        """
        check_share("coverage", coverage)
        place = floor((1 - coverage) * (len(self.own) + 1) + 1e-9)
        if place < 1:
            self._refuse(f"coverage={coverage:g}", 1 / (1 - coverage))
        return float(np.sort(self.own)[place - 1])

    def _refuse(self, what: str, needed: float) -> None:
        text = f"{what} needs at least {int(np.ceil(needed - 1e-9)) - 1} images that were held back, and the model has"
        raise UsageError(f"{text} {len(self.own)}; choose a value closer to 0.5, or train with more images")

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays to store."""
        return {
            "confidence": self.confidence,
            "own": self.own,
            "distance": self.distance,
            "means": self.statistics.means,
            "counts": self.statistics.counts,
            "covariance": self.statistics.covariance,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Reference:
        """Create a reference from the arrays of ``to_arrays``; raises ``KeyError`` or ``ValueError`` for others."""
        means, counts, covariance = (np.asarray(arrays[name]) for name in ("means", "counts", "covariance"))
        if means.ndim != 2 or counts.shape != means.shape[:1] or covariance.shape != (means.shape[1],) * 2:
            raise ValueError("the shapes of means, counts and covariance do not match")
        scores = {name: np.asarray(arrays[name], np.float32) for name in ("confidence", "own", "distance")}
        if len({each.shape for each in scores.values()}) > 1 or not len(scores["own"]):
            raise ValueError("the shapes of confidence, own and distance do not match")
        statistics = ClassStatistics(
            means=means.astype(np.float32), counts=counts.astype(np.int64), covariance=covariance.astype(np.float32)
        )
        return cls(statistics=statistics, **scores)


def build_reference(confidence: Floats, own: Floats, distance: Floats, statistics: ClassStatistics) -> Reference | None:
    """Return the reference of the images whose scores are finite, at most ``MOST``; None without any."""
    rows = np.flatnonzero(np.isfinite(confidence) & np.isfinite(own) & np.isfinite(distance))
    rows = rows[:: max(1, -(-len(rows) // MOST))]
    if not len(rows):
        return None
    kept = (np.ascontiguousarray(each[rows], np.float32) for each in (confidence, own, distance))
    return Reference(**dict(zip(("confidence", "own", "distance"), kept, strict=True)), statistics=statistics)


def check_share(name: str, value: float) -> None:
    """Raise ``UsageError`` unless a value is between 0 and 1."""
    if not 0 < value < 1:
        raise UsageError(f"{name}={value:g} must be between 0 and 1, such as 0.05 or 0.95")


def rank_among(values: Floats, reference: Floats) -> Floats:
    """Return the rank of each value among the reference, from 0 (below all) to 1 (above all)."""
    ordered = np.sort(reference)
    low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    found: Floats = ((low + high) / (2 * len(ordered))).astype(np.float32)
    return found
