"""Images of no known class: how far an image's features are from those of the classes.

The score combines the network's confidence with the relative Mahalanobis distance (Ren et al. 2021,
https://arxiv.org/abs/2106.09022): the distance to the nearest class minus the distance to all images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Rows = NDArray[np.int64]

SHRINKAGE = 0.05  # share of the mean variance in the covariance, at least
SMALLEST = 1e-12


@dataclass(frozen=True, kw_only=True)
class ClassStatistics:
    """Means of the classes (K, D), images of each class (K,), and their shared covariance (D, D), float32."""

    means: Floats
    counts: Rows
    covariance: Floats

    @cached_property
    def _within(self) -> Doubles:
        return invert_root(self.covariance.astype(np.float64))

    @cached_property
    def _overall(self) -> tuple[Doubles, Doubles]:
        """The mean of all images, and the whitening of their covariance: within the classes plus between them."""
        shares = self.counts / self.counts.sum()
        mean = shares @ self.means.astype(np.float64)
        apart = (self.means - mean) * np.sqrt(shares)[:, None]
        return mean, invert_root(self.covariance + apart.T @ apart)

    def measure_distance(self, features: Floats) -> Floats:
        """Return the relative Mahalanobis distance (N,) of features (N, D); larger for images of no class."""
        known = self.counts > 0
        points = features.astype(np.float64) @ self._within
        centres = self.means[known].astype(np.float64) @ self._within
        squared = (points**2).sum(axis=1)[:, None] - 2 * points @ centres.T + (centres**2).sum(axis=1)
        mean, whitening = self._overall
        overall = (((features - mean) @ whitening) ** 2).sum(axis=1)
        found: Floats = (squared.min(axis=1) - overall).astype(np.float32)
        return found


def invert_root(covariance: Doubles) -> Doubles:
    """Return W with W W' equal to the inverse of a covariance, so that x W has the unit covariance."""
    root = np.linalg.cholesky(covariance)
    inverse: Doubles = np.linalg.solve(root, np.eye(len(root))).T
    return inverse


@dataclass(slots=True, kw_only=True)
class Moments:
    """Sums over the images of each class, from which statistics follow; sums of disjoint images can be subtracted."""

    counts: Rows
    sums: Doubles
    squares: Doubles

    def without(self, other: Moments) -> Moments:
        """Return the sums over the images that are not in ``other``."""
        return Moments(
            counts=self.counts - other.counts, sums=self.sums - other.sums, squares=self.squares - other.squares
        )

    def compute_statistics(self) -> ClassStatistics:
        """Return means and the shared covariance, shrunk towards equal variances by at least ``SHRINKAGE``."""
        images, width = int(self.counts.sum()), self.sums.shape[1]
        means = self.sums / np.maximum(self.counts, 1)[:, None]
        covariance = (self.squares - (means * self.counts[:, None]).T @ means) / max(images, 1)
        mean_variance = max(float(np.trace(covariance)) / width, 0.0)
        shrinkage = max(SHRINKAGE, width / (width + images))
        covariance = (1 - shrinkage) * covariance + (shrinkage * mean_variance + SMALLEST) * np.eye(width)
        return ClassStatistics(
            means=means.astype(np.float32), counts=self.counts, covariance=covariance.astype(np.float32)
        )


def sum_moments(features: Floats, labels: Rows, classes: int) -> Moments:
    """Return the sums over features (N, D) with labels (N,)."""
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels, features)
    wide = features.astype(np.float64)
    return Moments(counts=np.bincount(labels, minlength=classes), sums=sums, squares=wide.T @ wide)


def measure_out_of_fold(features: Floats, labels: Rows, folds: Rows, classes: int) -> Floats:
    """Return the distance (N,) of each image by the statistics of the other folds; NaN if there are no others."""
    total = sum_moments(features, labels, classes)
    distances = np.full(len(labels), np.nan, np.float32)
    for fold in np.unique(folds):
        inside = folds == fold
        rest = total.without(sum_moments(features[inside], labels[inside], classes))
        if rest.counts.sum() > 1:
            distances[inside] = rest.compute_statistics().measure_distance(features[inside])
    return distances
