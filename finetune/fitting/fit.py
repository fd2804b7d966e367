"""The fitted head: a linear layer at the optimum of its loss, its strength and class weights chosen out of fold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from finetune.fitting.intervals import row_losses, score
from finetune.fitting.logistic import Part, Problem, find_basis, measure_scaling, solve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from finetune.fitting.logistic import Basis, Scaling, Solution

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Rows = NDArray[np.int64]
    Flags = NDArray[np.bool_]

STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)  # tried from strong to weak
DEFAULT_STRENGTH = 0.1  # where too few images are there to choose by
RISE = 0.03  # of the least loss out of fold: a loss this much higher ends the path
ONE_FOLD = 20_000  # rows, above which one fold is judged instead of all
ROUGH, FINE = 1e-4, 1e-6  # how close solutions come to the least value: those of the folds, and the last one
NAMED = 5  # rows that an error names


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Features to fit a head to, and who judges it.

    Attributes:
        features: One row for each view of an image, float32 or float16 (M, D); may be memory-mapped.
        labels: int64 (M,).
        folds: The fold of each row's image, int64 (M,).
        plain: False for rows of augmented views, bool (M,). They train in the folds that their image trains in;
            only plain rows are judged.
    """

    features: Floats
    labels: Rows
    folds: Rows
    plain: Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Class weights to try, float32 (K,); None weighs all images the same."""

    name: str
    class_weights: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A strength that was tried, and its scores out of fold."""

    strength: float
    choice: str
    log_loss: float
    accuracy: float
    macro_f1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A fitted head for raw features.

    Attributes:
        weight: float32 (K, D).
        bias: float32 (K,).
        strength: The chosen strength of the penalty.
        choice: The name of the chosen class weights.
        loss: The mean training loss, without the penalty.
        logits: Out-of-fold logits of the plain rows, in their order, float32 (N, K); NaN where ``judged`` is False.
        judged: The plain rows that have out-of-fold logits, bool (N,); none if no choice was possible.
        path: What was tried, in order.
        passes: Passes over the training rows in all.
    """

    weight: Floats
    bias: Floats
    strength: float
    choice: str
    loss: float
    logits: Floats
    judged: Flags
    path: tuple[Step, ...]
    passes: int


def _nothing() -> None: ...


@dataclass(slots=True, kw_only=True)
class _Fit:
    """Rows in the basis, in the order of their folds, and what is the same for all strengths and choices."""

    data: Data
    classes: int
    smoothing: float
    scaling: Scaling
    basis: Basis
    rotated: Floats
    order: Rows
    check: Callable[[], None]
    passes: int = 0
    path: list[Step] = field(default_factory=list)

    @property
    def labels(self) -> Rows:
        return self.data.labels[self.order]


@dataclass(slots=True, kw_only=True)
class _Best:
    """The best step of a choice: its out-of-fold logits of the judged rows, and the folds' solutions."""

    step: Step
    loss: float
    logits: Floats
    points: list[Doubles]
    choice: Choice


def fit_head(
    data: Data,
    classes: int,
    *,
    smoothing: float = 0.0,
    choices: Sequence[Choice] = (Choice(name="none"),),
    judge: Literal["loss", "macro_f1"] = "loss",
    strengths: Sequence[float] = STRENGTHS,
    check: Callable[[], None] = _nothing,
    report: Callable[[Step], None] = lambda step: None,
) -> Fitted:
    """Fit a linear head to features, with the strength and the class weights that do best out of fold.

    Each choice goes down the path of strengths as long as its loss out of fold falls, each solution starting from the
    previous one; the loss there has the choice's own class weights, without smoothing. ``judge`` then decides between
    choices. The last fit takes all rows. With less than 4 plain rows, or less than two classes that have two of
    them, nothing can be chosen: the strength is ``DEFAULT_STRENGTH`` with the first choice.

    Scaling and basis are taken of all rows, including those that are judged. A fixed scale for each feature and a
    rotation know nothing of labels, so they don't make the estimate better than it is.

    Args:
        data: Features, labels and folds.
        classes: Number of classes.
        smoothing: Label smoothing, as in the loss.
        choices: Class weights to try.
        judge: Score that decides between choices.
        strengths: Strengths to try, from strong to weak.
        check: Called once a pass; may raise to stop.
        report: Called with each step of the path.

    Raises:
        ValueError: A feature is not finite, or arrays do not fit together.
    """
    _check_data(data, classes)
    fit = _prepare(data, classes, smoothing, check)
    folds = _judged_folds(data)
    if not folds:
        return _finish(fit, choices[0], DEFAULT_STRENGTH, None)
    found = [_walk(fit, choice, folds, strengths, report) for choice in choices]
    best = found[0]
    for other in found[1:]:
        if _is_better(other.step, best.step, judge):
            best = other
    return _finish(fit, best.choice, best.step.strength, best)


def _is_better(step: Step, than: Step, judge: Literal["loss", "macro_f1"]) -> bool:
    return step.log_loss < than.log_loss if judge == "loss" else step.macro_f1 > than.macro_f1


def _check_data(data: Data, classes: int) -> None:
    rows = len(data.features)
    if not rows == len(data.labels) == len(data.folds) == len(data.plain):
        raise ValueError("features, labels, folds and plain must have the same number of rows")
    if not rows:
        raise ValueError("features: no rows to fit to")
    if data.labels.min() < 0 or data.labels.max() >= classes:
        raise ValueError(f"labels: must be between 0 and {classes - 1}")
    check_finite(data.features)


def check_finite(features: Floats) -> None:
    """Raise ``NotFiniteError`` for rows that hold NaN or infinity."""
    bad: list[int] = []
    for start in range(0, len(features), 4096):
        finite = np.isfinite(features[start : start + 4096]).all(axis=1)
        bad += (np.flatnonzero(~finite) + start).tolist()
    if bad:
        more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise NotFiniteError(f"features: not finite in rows {', '.join(map(str, bad[:NAMED]))}{more}", bad)


class NotFiniteError(ValueError):
    """Features hold NaN or infinity; ``rows`` are their numbers."""

    def __init__(self, message: str, rows: list[int]) -> None:
        super().__init__(message)
        self.rows = rows


def _prepare(data: Data, classes: int, smoothing: float, check: Callable[[], None]) -> _Fit:
    scaling = measure_scaling(data.features)
    scaled = scaling.apply(data.features)
    basis = find_basis(scaled)
    check()
    order = np.argsort(data.folds, kind="stable")
    rotated = scaled[order] @ basis.vectors.astype(np.float32)
    return _Fit(
        data=data,
        classes=classes,
        smoothing=smoothing,
        scaling=scaling,
        basis=basis,
        rotated=rotated,
        order=order,
        check=check,
    )


def _judged_folds(data: Data) -> list[int]:
    """Return the folds to judge; none where nothing can be chosen."""
    labels, folds = data.labels[data.plain], data.folds[data.plain]
    found = np.unique(folds)
    if len(labels) < 4 or len(found) < 2 or (np.bincount(labels) >= 2).sum() < 2:
        return []
    return [int(fold) for fold in found[: 1 if len(data.labels) > ONE_FOLD else None]]


def _walk(
    fit: _Fit, choice: Choice, folds: list[int], strengths: Sequence[float], report: Callable[[Step], None]
) -> _Best:
    """Return the best strength of a choice."""
    points: list[Doubles | None] = [None] * len(folds)
    best: _Best | None = None
    for strength in strengths:
        solved = [_solve(fit, choice, strength, fold, start, ROUGH) for fold, start in zip(folds, points, strict=True)]
        points = [each.point for each in solved]
        step, loss, logits = _judge(fit, choice, strength, folds, solved)
        report(step)
        fit.path.append(step)
        if best is None or loss < best.loss:
            best = _Best(step=step, loss=loss, logits=logits, points=[each.point for each in solved], choice=choice)
        elif loss > best.loss * (1.0 + RISE):
            break
    assert best is not None
    return best


def _solve(
    fit: _Fit, choice: Choice, strength: float, without: int | None, start: Doubles | None, tolerance: float
) -> Solution:
    """Return the solution on all rows but those of a fold."""
    folds = fit.data.folds[fit.order]
    spans = [(0, len(folds))]
    if without is not None:
        low, high = int(np.searchsorted(folds, without, "left")), int(np.searchsorted(folds, without, "right"))
        spans = [(0, low), (high, len(folds))]
    labels = fit.labels
    weights = np.ones(len(labels), np.float32)
    if choice.class_weights is not None:
        weights = choice.class_weights.astype(np.float32)[labels]
    parts = tuple(Part(features=fit.rotated[a:b], labels=labels[a:b], weights=weights[a:b]) for a, b in spans if b > a)
    problem = Problem(
        parts=parts,
        variances=fit.basis.variances,
        classes=fit.classes,
        strength=strength,
        smoothing=fit.smoothing,
    )
    found = solve(problem, start, tolerance=tolerance, check=fit.check)
    fit.passes += found.passes
    return found


def _judge(
    fit: _Fit, choice: Choice, strength: float, folds: list[int], solved: list[Solution]
) -> tuple[Step, float, Floats]:
    """Return scores out of fold, the loss to choose a strength by, and logits of all plain rows."""
    place = np.cumsum(fit.data.plain) - 1
    logits = np.full((int(fit.data.plain.sum()), fit.classes), np.nan, np.float32)
    ordered = fit.data.folds[fit.order]
    for fold, each in zip(folds, solved, strict=True):
        at = np.flatnonzero((ordered == fold) & fit.data.plain[fit.order])
        point = each.point.astype(np.float32)
        logits[place[fit.order[at]]] = fit.rotated[at] @ point[:, :-1].T + point[:, -1]
    judged = np.isin(fit.data.folds[fit.data.plain], folds)
    labels = fit.data.labels[fit.data.plain][judged]
    scores = score(logits[judged], labels, fit.classes)
    step = Step(
        strength=strength,
        choice=choice.name,
        log_loss=scores["loss"],
        accuracy=scores["accuracy"],
        macro_f1=scores["macro_f1"],
    )
    if choice.class_weights is None:
        return step, step.log_loss, logits
    weights = choice.class_weights[labels].astype(np.float64)
    loss = float((weights * row_losses(logits[judged], labels)).sum() / max(weights.sum(), 1e-300))
    return step, loss, logits


def _finish(fit: _Fit, choice: Choice, strength: float, best: _Best | None) -> Fitted:
    """Fit to all rows, starting from the mean of the folds' solutions, and fold the scaling into weight and bias."""
    start = None if best is None else np.mean(best.points, axis=0)
    found = _solve(fit, choice, strength, None, start, FINE)
    weight = (found.point[:, :-1] @ fit.basis.vectors.T) * fit.scaling.inverse
    bias = found.point[:, -1] - weight @ fit.scaling.mean
    plain = int(fit.data.plain.sum())
    logits = np.full((plain, fit.classes), np.nan, np.float32) if best is None else best.logits
    return Fitted(
        weight=weight.astype(np.float32),
        bias=bias.astype(np.float32),
        strength=strength,
        choice=choice.name,
        loss=found.loss,
        logits=logits,
        judged=~np.isnan(logits[:, 0]),
        path=tuple(fit.path),
        passes=fit.passes,
    )
