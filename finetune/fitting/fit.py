"""Fit of a head: a linear layer at the optimum of its loss, with strength and class weights chosen out of fold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from finetune.fitting.data import Choice, Data, Fitted, Step, check_data
from finetune.fitting.folds import scramble
from finetune.fitting.logistic import Part, Problem, find_basis, measure_scaling, rotate_features, solve_problem
from finetune.fitting.scores import calibrate_logits, compare_macro_f1, compute_row_losses, score_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from finetune.fitting.logistic import Basis, Scaling, Solution

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Rows = NDArray[np.int64]
    Flags = NDArray[np.bool_]

STRENGTHS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)  # tried from strong to weak
EXPONENT = 0.5  # features are divided by the standard deviation to this power; 1 would standardise them
DEFAULT_STRENGTH = 0.03  # used if there are too few images to choose
RISE = (
    0.03  # a loss this much above the least out-of-fold loss, as a share, ends the path; with one fold, any rise does
)
ONE_FOLD = 20_000  # with more rows, only one fold is scored
ROUGH = 1e-3  # tolerance of the folds' solutions, as a share of the least out-of-fold loss so far
LEAST_OF_MANY = 0.03  # the greatest strength to try with more than ``ONE_FOLD`` rows, which never need a greater one
FINE, FINE_OF_MANY = 3e-6, 1e-5  # absolute tolerance of the final solution, and with more than ``ONE_FOLD`` rows
ROWS = 4096  # per block


def _do_nothing() -> None: ...


@dataclass(slots=True, kw_only=True)
class _Fit:
    """Everything that all strengths and choices share: rows in the basis, in random order within each fold.

    ``places`` has each row's number among the plain rows in their original order.
    """

    classes: int
    smoothing: float
    scaling: Scaling
    basis: Basis
    rotated: Floats
    labels: Rows
    folds: Rows
    plain: Flags
    places: Rows
    check: Callable[[], None]
    passes: float = 0.0
    path: list[Step] = field(default_factory=list)

    def plain_labels(self) -> Rows:
        """Return the labels of the plain rows in their original order."""
        labels = np.empty(int(self.plain.sum()), np.int64)
        labels[self.places[self.plain]] = self.labels[self.plain]
        return labels


@dataclass(slots=True, kw_only=True)
class _Best:
    """The best step of a choice, with the merit that it was chosen by, its logits, and the start of the final fit."""

    step: Step
    merit: float
    logits: Floats
    start: Doubles
    choice: Choice


def fit_head(
    data: Data,
    classes: int,
    *,
    smoothing: float = 0.0,
    choices: Sequence[Choice] = (Choice(name="none"),),
    judge: Literal["loss", "macro_f1"] = "loss",
    strengths: Sequence[float] = STRENGTHS,
    exponent: float = EXPONENT,
    calibrated: bool = True,
    tolerance: float = FINE,
    check: Callable[[], None] = _do_nothing,
    report: Callable[[Step], None] = lambda step: None,
) -> Fitted:
    """Fit a linear head to features, with the strength and the class weights that score best out of fold.

    Each choice tries weaker and weaker strengths while its out-of-fold loss falls; each solution starts from the
    previous one. This loss uses the choice's own class weights, no smoothing, and calibrated logits, so that no
    strength wins by its temperature. ``judge`` then decides between choices: by loss, the one with the least loss; by
    macro-F1, the last one unless an earlier one is better by more than the standard error. The final fit uses all
    rows. With fewer than 4 plain rows, or fewer than two classes with two plain rows, no choice is possible: the first
    choice is fitted with ``DEFAULT_STRENGTH``.

    Scaling and basis are computed from all rows, including those that are scored. They do not depend on labels, so
    they do not bias the estimate.

    Args:
        data: Features, labels and folds.
        classes: Number of classes.
        smoothing: Label smoothing, as in the loss.
        choices: Class weights to try.
        judge: The score that decides between choices.
        strengths: Strengths to try, from strong to weak.
        exponent: Features are divided by the standard deviation to this power: 1 standardises, 0 only centres.
        calibrated: Whether to multiply weight, bias and logits by the factor that calibrates them out of fold.
        tolerance: How close the final fit must come to its least value.
        check: Called once per pass; may raise to stop.
        report: Called with each step of the path.

    Raises:
        ValueError: A feature is not finite, or arrays do not match.
    """
    check_data(data, classes)
    fit = _prepare(data, classes, smoothing, exponent, check)
    folds = _list_judged_folds(data)
    if not folds:
        return _finish(fit, choices[0], DEFAULT_STRENGTH, None, tolerance)
    if len(data.labels) > ONE_FOLD:
        strengths = [each for each in strengths if each <= LEAST_OF_MANY] or strengths
        tolerance = max(tolerance, FINE_OF_MANY)
    found = [_walk_path(fit, choice, folds, strengths, report) for choice in choices]
    if judge == "loss":
        best, error = max(found, key=lambda each: each.merit), None
    else:
        best, error = _choose_by_macro_f1(fit, found)
    fitted = _finish(fit, best.choice, best.step.strength, best, tolerance, calibrated=calibrated)
    return replace(fitted, macro_f1={each.choice.name: each.step.macro_f1 for each in found}, macro_f1_error=error)


def _choose_by_macro_f1(fit: _Fit, found: Sequence[_Best]) -> tuple[_Best, float | None]:
    """Return the last choice, unless an earlier one is better by more than the standard error, and that error.

    With few images the macro-F1 varies by more than the effect of class weights, so weights are preferred by default.
    """
    labels = fit.plain_labels()
    best, error = found[-1], None
    for other in reversed(found[:-1]):
        judged = ~np.isnan(other.logits[:, 0])
        first, second = (each.logits[judged].argmax(axis=1) for each in (other, best))
        higher, error = compare_macro_f1(labels[judged], first, second, fit.classes)
        best = other if higher > error else best
    return best, error


def _prepare(data: Data, classes: int, smoothing: float, exponent: float, check: Callable[[], None]) -> _Fit:
    scaling = measure_scaling(data.features, exponent)
    basis = find_basis(data.features, scaling)
    check()
    order = np.lexsort((scramble(len(data.labels), 0), data.folds))
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return _Fit(
        classes=classes,
        smoothing=smoothing,
        scaling=scaling,
        basis=basis,
        rotated=rotate_features(data.features, scaling, basis, places),
        labels=data.labels[order],
        folds=data.folds[order],
        plain=data.plain[order],
        places=(np.cumsum(data.plain) - 1)[order],
        check=check,
    )


def _list_judged_folds(data: Data) -> list[int]:
    """Return the folds to score; an empty list if no choice is possible."""
    labels, folds = data.labels[data.plain], data.folds[data.plain]
    found = np.unique(folds)
    if len(labels) < 4 or len(found) < 2 or (np.bincount(labels) >= 2).sum() < 2:
        return []
    return [int(fold) for fold in found[: 1 if len(data.labels) > ONE_FOLD else None]]


def _walk_path(
    fit: _Fit,
    choice: Choice,
    folds: list[int],
    strengths: Sequence[float],
    report: Callable[[Step], None],
) -> _Best:
    """Find the best strength of a choice."""
    tracks = [_Track() for _ in folds]
    best: _Best | None = None
    least = float(np.log(max(fit.classes, 2)))
    for number, strength in enumerate(strengths):
        for fold, track in zip(folds, tracks, strict=True):
            found = _solve(fit, choice, strength, fold, track.start(strength), ROUGH * least)
            track.add(found.point, strength)
        points = [track.points[-1] for track in tracks]
        logits = _predict(fit, folds, points)
        step, loss = _evaluate_penalty(fit, choice, strength, logits)
        report(step)
        fit.path.append(step)
        if best is None or -loss > best.merit:
            best = _Best(step=step, merit=-loss, logits=logits, start=np.mean(points, axis=0), choice=choice)
        if number and loss > least * (1.0 + (RISE if len(folds) > 1 else 0.0)):
            break
        least = min(loss, least)
    assert best is not None
    return best


class _Track:
    """The last two solutions of a fold; the next one starts at their linear extrapolation."""

    def __init__(self) -> None:
        self.points: list[Doubles] = []
        self.strengths: list[float] = []

    def add(self, point: Doubles, strength: float) -> None:
        self.points, self.strengths = [*self.points[-1:], point], [*self.strengths[-1:], strength]

    def start(self, strength: float) -> Doubles | None:
        if len(self.points) < 2:
            return self.points[0] if self.points else None
        before, last = np.log(self.strengths)
        share = float((np.log(strength) - last) / (last - before)) if last != before else 0.0
        return self.points[1] + share * (self.points[1] - self.points[0])


def _solve(
    fit: _Fit, choice: Choice, strength: float, without: int | None, start: Doubles | None, tolerance: float
) -> Solution:
    """Solve for all rows except those of the fold ``without``."""
    spans = [(0, len(fit.folds))]
    if without is not None:
        low, high = int(np.searchsorted(fit.folds, without, "left")), int(np.searchsorted(fit.folds, without, "right"))
        spans = [(0, low), (high, len(fit.folds))]
    problem = Problem(
        parts=tuple(_build_part(fit, choice, low, high) for low, high in spans if high > low),
        variances=fit.basis.variances,
        classes=fit.classes,
        strength=strength,
        smoothing=fit.smoothing,
    )
    found = solve_problem(problem, start, tolerance=tolerance, check=fit.check)
    fit.passes += found.passes
    return found


def _build_part(fit: _Fit, choice: Choice, low: int, high: int) -> Part:
    labels = fit.labels[low:high]
    weights = np.ones(len(labels), np.float32)
    if choice.class_weights is not None:
        weights = choice.class_weights.astype(np.float32)[labels]
    return Part(features=fit.rotated[low:high], labels=labels, weights=weights)


def _predict(fit: _Fit, folds: list[int], points: list[Doubles]) -> Floats:
    """Return out-of-fold logits of the plain rows in their original order; NaN for rows of different folds."""
    logits = np.full((int(fit.plain.sum()), fit.classes), np.nan, np.float32)
    for fold, point in zip(folds, points, strict=True):
        rows = np.flatnonzero((fit.folds == fold) & fit.plain)
        weight, bias = point[:, :-1].astype(np.float32), point[:, -1].astype(np.float32)
        logits[fit.places[rows]] = fit.rotated[rows] @ weight.T + bias
    return logits


def _evaluate_penalty(fit: _Fit, choice: Choice, strength: float, logits: Floats) -> tuple[Step, float]:
    """Return the out-of-fold scores, and the loss that selects the strength."""
    judged = ~np.isnan(logits[:, 0])
    logits, labels = logits[judged], fit.plain_labels()[judged]
    given = choice.class_weights
    weights = None if given is None or not given[labels].any() else given[labels].astype(np.float64)
    factor, loss = calibrate_logits(logits, labels, weights)
    scores = score_logits(logits, labels, fit.classes)
    step = Step(
        strength=strength,
        choice=choice.name,
        log_loss=scores["loss"],
        accuracy=scores["accuracy"],
        macro_f1=scores["macro_f1"],
        factor=factor,
    )
    return step, loss


def _finish(
    fit: _Fit, choice: Choice, strength: float, best: _Best | None, tolerance: float, *, calibrated: bool = False
) -> Fitted:
    """Fit all rows, starting from the mean of the folds' solutions, and merge the scaling into weight and bias."""
    found = _solve(fit, choice, strength, None, None if best is None else best.start, tolerance)
    factor = best.step.factor if best is not None and calibrated else 1.0
    point = found.point * factor
    weight = (point[:, :-1] @ fit.basis.vectors.T) * fit.scaling.inverse
    bias = point[:, -1] - weight @ fit.scaling.mean
    logits = _predict(fit, [], []) if best is None else best.logits * np.float32(factor)
    return Fitted(
        weight=weight.astype(np.float32),
        bias=bias.astype(np.float32),
        strength=strength,
        choice=choice.name,
        loss=found.loss if factor == 1.0 else _training_loss(fit, choice, point),
        logits=logits,
        judged=~np.isnan(logits[:, 0]),
        path=tuple(fit.path),
        passes=fit.passes,
    )


def _training_loss(fit: _Fit, choice: Choice, point: Doubles) -> float:
    """Return the mean loss of all rows at a point, without the penalty."""
    weight, bias = point[:, :-1].astype(np.float32), point[:, -1].astype(np.float32)
    summed = total = 0.0
    for start in range(0, len(fit.labels), ROWS):
        labels = fit.labels[start : start + ROWS]
        logits = fit.rotated[start : start + ROWS] @ weight.T + bias
        losses = compute_row_losses(logits, labels)
        if fit.smoothing:
            own = logits[np.arange(len(labels)), labels]
            losses += fit.smoothing * (own - logits.mean(axis=1, dtype=np.float64))
        weights = np.ones(len(labels)) if choice.class_weights is None else choice.class_weights[labels]
        summed, total = summed + float((losses * weights).sum()), total + float(weights.sum())
    return summed / total if total else 0.0
