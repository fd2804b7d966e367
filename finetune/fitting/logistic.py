"""Multinomial logistic regression: scaling and basis of features, and the optimum by Newton steps.

Newton's equations are solved by conjugate gradients in the eigenbasis of the features' covariance. In this basis the
curvature of the loss is close to diagonal, so a few passes over the rows are enough; the original coordinates need
hundreds.

Sums over blocks of rows are float64, products within a block float32. The same rows give the same bytes with the same
number of BLAS threads; with a different number, eigenvectors and products may differ in their last bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Rows = NDArray[np.int64]

BLOCK = 2048  # rows per block
FLAT = 1e-6  # features with less than this share of the largest standard deviation count as constant
ENOUGH = 8  # rows per feature from which a sample of rows is enough for the basis
THIN = 1e-10  # directions with less than this share of the largest variance are left out
STEPS = 50  # the most Newton steps
INNER = 40  # the most products with the Hessian in one Newton step
FORCING = 0.3  # the share of the gradient that may remain when the equations of a Newton step count as solved
HALVINGS = 8
SAMPLE = 8  # rows per direction of the basis from which the Hessian is estimated, if there are more
SLOW = 0.3  # if a step leaves more than this share of the excess, the Hessian uses twice as many rows
FLOOR = 1e-6  # the least curvature; smaller values are dominated by rounding
NOISE = 1e-8  # relative error of the value, whose logits are float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Mean and factor of each feature, float64 (D,): 1/standard deviation, or 0 for constant features."""

    mean: Doubles
    inverse: Doubles

    def apply(self, features: Floats) -> Floats:
        """Return standardised features, float32 (N, D)."""
        scaled = features.astype(np.float32) - self.mean.astype(np.float32)
        scaled *= self.inverse.astype(np.float32)
        return scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Eigenvectors (D, R) of the covariance of standardised features, and their eigenvalues (R,)."""

    vectors: Doubles
    variances: Doubles


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows to train on, in random order: features in the basis (N, R), labels (N,) and weights, float32 (N,)."""

    features: Floats
    labels: Rows
    weights: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The function to minimise: the weighted mean loss of the parts, plus the penalty of ``strength``."""

    parts: tuple[Part, ...]
    variances: Doubles
    classes: int
    strength: float
    smoothing: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Weights and bias in the basis, float64 (K, R + 1), the loss without the penalty, and the passes over the rows."""

    point: Doubles
    loss: float
    passes: float


def measure_scaling(features: Floats, exponent: float = 1.0) -> Scaling:
    """Return the scaling of features, computed in float64.

    Features are divided by the standard deviation to the power of ``exponent``, then all by the same number so that
    the mean of their variances is 1.
    """
    total, squares = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for block in _iterate_blocks(features):
        total += block.sum(axis=0, dtype=np.float64)
    mean = total / len(features)
    for block in _iterate_blocks(features):
        squares += np.square(block - mean).sum(axis=0)
    deviation = np.sqrt(squares / len(features))
    varies = deviation > FLAT * max(float(deviation.max(initial=0.0)), float(np.finfo(np.float32).tiny))
    inverse = np.where(varies, np.where(varies, deviation, 1.0) ** -exponent, 0.0)
    if exponent != 1.0 and varies.any():
        inverse /= np.sqrt(np.square(inverse * deviation)[varies].mean())
    return Scaling(mean=mean, inverse=inverse)


def find_basis(features: Floats, scaling: Scaling) -> Basis:
    """Return a basis of the span of the scaled rows, with at most as many directions as rows.

    With many rows, a sample of them is used. Any orthonormal basis is correct, and that of a sample is nearly as
    efficient. It then keeps all directions, since the sample may lack rare ones.
    """
    rows, columns = features.shape
    if rows < columns:
        wide = scaling.apply(features).astype(np.float64)
        variances, left = _decompose(wide @ wide.T / rows, THIN)
        return Basis(vectors=wide.T @ left / np.sqrt(rows * variances), variances=variances)
    covariance = np.zeros((columns, columns))
    every = max(1, rows // max(ENOUGH * columns, BLOCK))
    looked_at = 0
    for block in list(_iterate_blocks(features))[::every]:
        scaled = scaling.apply(block)
        covariance += scaled.T @ scaled
        looked_at += len(block)
    variances, vectors = _decompose(covariance / looked_at, THIN if every == 1 else -np.inf)
    return Basis(vectors=vectors, variances=variances)


def rotate_features(features: Floats, scaling: Scaling, basis: Basis, places: Rows) -> Floats:
    """Return standardised features in the basis, float32 (N, R); row ``i`` goes to ``places[i]``."""
    rotated = np.empty((len(features), len(basis.variances)), np.float32)
    vectors = basis.vectors.astype(np.float32)
    for start in range(0, len(features), BLOCK):
        rotated[places[start : start + BLOCK]] = scaling.apply(features[start : start + BLOCK]) @ vectors
    return rotated


def _decompose(matrix: Doubles, thin: float) -> tuple[Doubles, Doubles]:
    """Return the eigenvalues of a symmetric matrix above ``thin`` times the largest, and their eigenvectors."""
    variances, vectors = np.linalg.eigh(matrix)
    chosen = variances > thin * max(float(variances.max(initial=0.0)), float(np.finfo(np.float64).tiny))
    return np.maximum(variances[chosen], 0.0), vectors[:, chosen]


def _iterate_blocks(rows: Floats) -> Iterator[Floats]:
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


def solve_problem(
    problem: Problem,
    start: Doubles | None = None,
    *,
    tolerance: float = 1e-7,
    check: Callable[[], None] = lambda: None,
) -> Solution:
    """Minimise a problem to within about ``tolerance`` of its least value.

    The loss of a row is the cross-entropy with its smoothed label, times its weight. The penalty is half of
    ``strength`` times the squared weights, without the bias. ``check`` is called once per pass and may raise.
    """
    work = _Work(problem, check)
    point = np.zeros((problem.classes, len(problem.variances) + 1)) if start is None else start.copy()
    value, gradient = work.evaluate(point)
    before = float("inf")
    for _ in range(STEPS):
        scale = work.preconditioner()
        excess = 0.5 * float((gradient * gradient * scale).sum())
        if excess < tolerance:
            break
        if excess > SLOW * before:
            work.sample_rows(max(1, work.every // 2))
        before = excess
        step = work.newton_step(gradient, scale)
        moved = _search_step(work, point, value, gradient, step)
        if moved is None:
            break
        point, value, gradient = moved
    return Solution(point=point, loss=value - work.penalty(point), passes=work.passes)


def _search_step(
    work: _Work, point: Doubles, value: float, gradient: Doubles, step: Doubles
) -> tuple[Doubles, float, Doubles] | None:
    """Return point, value and gradient after the longest step that lowers the value; None if no step does."""
    slope = float((gradient * step).sum())
    for halving in range(HALVINGS):
        length = 0.5**halving
        found, after = work.evaluate(point + length * step)
        if found <= value + 1e-4 * length * slope + NOISE * abs(value):
            return point + length * step, found, after
    return None


class _Work:
    """The value, gradient and Hessian of a problem at the last evaluated point."""

    def __init__(self, problem: Problem, check: Callable[[], None]) -> None:
        self.problem, self.check, self.passes = problem, check, 0.0
        self.total = max(sum(float(part.weights.sum(dtype=np.float64)) for part in problem.parts), 1e-300)
        self.blocks = [
            Part(
                features=part.features[at : at + BLOCK],
                labels=part.labels[at : at + BLOCK],
                weights=part.weights[at : at + BLOCK],
            )
            for part in problem.parts
            for at in range(0, len(part.labels), BLOCK)
        ]
        self.probabilities = [np.empty((len(b.labels), problem.classes), np.float32) for b in self.blocks]
        rows = sum(len(block.labels) for block in self.blocks)
        self.sample_rows(max(1, rows // max(SAMPLE * len(problem.variances), 4 * BLOCK)))

    def sample_rows(self, every: int) -> None:
        """From now on, estimate the Hessian from one block in ``every``."""
        self.every = every
        sampled = sum(float(block.weights.sum(dtype=np.float64)) for block in self.blocks[::every])
        self.sampled = max(sampled, 1e-300)

    def penalty(self, point: Doubles) -> float:
        return 0.5 * self.problem.strength * float(np.square(point[:, :-1]).sum())

    def evaluate(self, point: Doubles) -> tuple[float, Doubles]:
        """Return value and gradient at a point, and store each row's probabilities."""
        self.check()
        self.passes += 1
        loss, gradient = 0.0, np.zeros_like(point)
        weight, bias = point[:, :-1].astype(np.float32), point[:, -1].astype(np.float32)
        for block, kept in zip(self.blocks, self.probabilities, strict=True):
            np.matmul(block.features, weight.T, out=kept)
            kept += bias
            loss += self._normalise(block, kept)
            self._add(gradient, block, self._residual(block, kept))
        gradient /= self.total
        gradient[:, :-1] += self.problem.strength * point[:, :-1]
        return loss / self.total + self.penalty(point), gradient

    def _normalise(self, block: Part, logits: Floats) -> float:
        """Convert logits to probabilities in place, and return the sum of the rows' losses."""
        smoothing, rows = self.problem.smoothing, np.arange(len(block.labels))
        logits -= logits.max(axis=1, keepdims=True)
        wanted = (1.0 - smoothing) * logits[rows, block.labels].astype(np.float64)
        if smoothing:
            wanted += smoothing * logits.mean(axis=1, dtype=np.float64)
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1, keepdims=True)
        logits /= sums
        return float((block.weights * (np.log(sums[:, 0].astype(np.float64)) - wanted)).sum())

    def _residual(self, block: Part, probabilities: Floats) -> Floats:
        smoothing = self.problem.smoothing
        residual = probabilities - np.float32(smoothing / self.problem.classes)
        residual[np.arange(len(block.labels)), block.labels] -= np.float32(1.0 - smoothing)
        residual *= block.weights[:, None]
        return residual

    def _add(self, sums: Doubles, block: Part, residual: Floats) -> None:
        sums[:, :-1] += residual.T @ block.features
        sums[:, -1] += residual.sum(axis=0, dtype=np.float64)

    def hessian(self, direction: Doubles) -> Doubles:
        """Return the Hessian times a direction, estimated from one block in ``every``."""
        self.check()
        self.passes += 1 / self.every
        product = np.zeros_like(direction)
        weight, bias = direction[:, :-1].astype(np.float32), direction[:, -1].astype(np.float32)
        for block, kept in zip(self.blocks[:: self.every], self.probabilities[:: self.every], strict=True):
            change = block.features @ weight.T
            change += bias
            change *= kept
            change -= kept * change.sum(axis=1, keepdims=True)
            change *= block.weights[:, None]
            self._add(product, block, change)
        product /= self.sampled
        product[:, :-1] += self.problem.strength * direction[:, :-1]
        return product

    def preconditioner(self) -> Doubles:
        """Return an approximate inverse of the Hessian's diagonal, (K, R + 1)."""
        curvature = np.zeros(self.problem.classes)
        for block, kept in zip(self.blocks, self.probabilities, strict=True):
            curvature += np.einsum("nk,n->k", kept - kept * kept, block.weights)
        curvature = np.maximum(curvature / self.total, FLOOR)[:, None]
        inner = 1.0 / (curvature * self.problem.variances + self.problem.strength)
        return np.concatenate([inner, 1.0 / curvature], axis=1)

    def newton_step(self, gradient: Doubles, scale: Doubles) -> Doubles:
        """Return an approximate Newton step, by preconditioned conjugate gradients."""
        step, residual = np.zeros_like(gradient), -gradient
        scaled = residual * scale
        direction, size = scaled, float((residual * scaled).sum())
        goal = size * FORCING**2
        for _ in range(INNER):
            product = self.hessian(direction)
            along = float((direction * product).sum())
            if not along > 0.0:
                break
            step = step + (size / along) * direction
            residual = residual - (size / along) * product
            scaled = residual * scale
            before, size = size, float((residual * scaled).sum())
            if size <= goal:
                break
            direction = scaled + (size / before) * direction
        return step
